"""The table of routes of the pages."""

from roadstead.http.routes import Route
from roadstead.web.home import home

ROUTES = (Route("home", ("GET", "HEAD"), "/", home),)

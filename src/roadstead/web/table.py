"""The table of routes of the pages."""

from roadstead.http.routes import Route
from roadstead.web import account, sign_in
from roadstead.web.failure import respond
from roadstead.web.home import home

ROUTES = (
    Route("home", ("GET", "HEAD"), "/", home),
    Route("sign-in", ("GET", "HEAD"), "/auth/login", sign_in.login, tell=respond),
    Route("sign-in", ("GET",), "/auth/callback", sign_in.callback, tell=respond),
    Route("sign-in", ("POST",), "/auth/logout", sign_in.logout, tell=respond),
    Route("session", ("GET", "HEAD"), "/auth/session", sign_in.session),
    Route("account", ("GET", "HEAD"), "/account", account.show, tell=respond),
    Route("account", ("POST",), "/account/keys", account.make_key, tell=respond),
    Route("account", ("POST",), "/account/keys/revoke", account.revoke_key, tell=respond),
)

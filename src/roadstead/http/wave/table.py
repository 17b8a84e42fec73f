"""The routes of Wave's API, beside ``/v2/wt/`` (``pulls.py``)."""

from roadstead.http.routes import Route
from roadstead.http.wave import handlers
from roadstead.http.wave.errors import respond
from roadstead.http.wave.inspect import inspect

ROUTES = (
    Route("container-token", ("POST",), "/container-token", handlers.first, tell=respond),
    Route("container-token", ("GET", "HEAD"), "/container-token/{rest}", handlers.show, tell=respond),
    Route("container-token", ("DELETE",), "/container-token/{rest}", handlers.end, tell=respond),
    Route("container", ("POST",), "/v1alpha2/container", handlers.second, tell=respond),
    Route("container", ("GET", "HEAD"), "/v1alpha2/container/{rest}", handlers.describe, tell=respond),
    Route("validate-creds", ("POST",), "/validate-creds", handlers.validate, tell=respond),
    Route("validate-creds", ("POST",), "/v1alpha2/validate-creds", handlers.validate, tell=respond),
    Route("inspect", ("POST",), "/v1alpha1/inspect", inspect, tell=respond),
    Route("service-info", ("GET", "HEAD"), "/service-info", handlers.service_info, tell=respond),
)

"""How an event looks on the wire: distribution's envelope, or a CloudEvent. Pure."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from roadstead.secret import Secret

SIGNATURE_HEADER = "X-Roadstead-Signature-256"
_TYPE_PREFIX = "dev.roadstead"


class Format(StrEnum):
    """The forms that receivers know."""

    DISTRIBUTION = "distribution"
    CLOUDEVENTS = "cloudevents"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The body of one request, and what it is."""

    media_type: str
    body: bytes


def envelope(form: Format, events: Sequence[tuple[str, Mapping[str, Any]]]) -> Envelope:
    """Return events, each with its subject and in distribution's form (``Event.as_plain``), as a receiver wants them.

    Always the same bytes for the same events: a receiver that compares what comes twice finds no difference. One
    CloudEvent comes by itself, several as a batch (CloudEvents 1.0, JSON format, §4).
    """
    if form is Format.DISTRIBUTION:
        # Indented by three, as distribution 2 sends it; that only ever has one event in it.
        written = msgspec.json.encode({"events": [event for _, event in events]})
        return Envelope("application/vnd.docker.distribution.events.v1+json", msgspec.json.format(written, indent=3))
    told = [_cloud_event(subject, event) for subject, event in events]
    if len(told) == 1:
        return Envelope("application/cloudevents+json", msgspec.json.encode(told[0]))
    return Envelope("application/cloudevents-batch+json", msgspec.json.encode(told))


def signature(secret: Secret, body: bytes) -> str:
    """Return what `SIGNATURE_HEADER` says of a body: ``sha256=<hex HMAC-SHA256 of the exact bytes>``."""
    return f"sha256={hmac.new(secret.reveal().encode(), body, hashlib.sha256).hexdigest()}"


def _cloud_event(subject: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event in the JSON format of CloudEvents 1.0; ``data`` is distribution's form."""
    target = event["target"]
    about = target["repository"]
    if "tag" in target:
        about = f"{about}:{target['tag']}"
    elif "digest" in target:
        about = f"{about}@{target['digest']}"
    return {
        "specversion": "1.0",
        "id": event["id"],
        "source": f"//{event['source'].get('addr', 'roadstead')}",
        "type": f"{_TYPE_PREFIX}.{subject}.{event['action']}",
        "subject": about,
        "time": event["timestamp"],
        "datacontenttype": "application/json",
        "data": event,
    }

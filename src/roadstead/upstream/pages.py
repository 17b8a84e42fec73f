"""``Link: <…>; rel="next"``: where a list goes on (RFC 8288, distribution-spec end-8b)."""

import re
from collections.abc import Iterable

_LINK = re.compile(r'<([^<>]*+)>((?:\s*+;\s*+[A-Za-z*]++\s*+=\s*+(?:"[^"]*+"|[^\s;,"]++))*+)')
_REL = re.compile(r';\s*+rel\s*+=\s*+(?:"([^"]*+)"|([^\s;,"]++))', re.IGNORECASE)


def next_page(headers: Iterable[str]) -> str | None:
    """Return the target of the link whose relation is ``next``, as it is written; None on the last page. Pure."""
    for header in headers:
        for target, parameters in _LINK.findall(header):
            relations = [quoted or plain for quoted, plain in _REL.findall(parameters)]
            if relations and "next" in relations[0].lower().split():
                return str(target)
    return None

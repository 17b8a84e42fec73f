"""Where a derived image comes from, as a statement that others read (in-toto Statement v1, SLSA provenance v1).

The statement is about every manifest that came of a derivation, and says: made of this image, by its digest, with this
plan. There is no time in it, no machine and no version: whoever derives the same says the same, byte for byte.
"""

import json
from typing import Any

from roadstead.augment.ports import Derivation
from roadstead.oci.artifact import Artifact, ArtifactBlob
from roadstead.oci.digest import Digest

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
IN_TOTO = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:roadstead:augment:v1"
"""How to read the parameters: ``plan`` is the plan's canonical JSON (docs/how-to/verify-and-sign.md)."""

PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
"""What builders and scanners look for on such a blob."""


def statement(derivation: Derivation, builder: str) -> bytes:
    """Return the statement about what was derived; `builder` is a URI that says who we are. Pure, deterministic."""
    plan = json.loads(derivation.plan)
    document = {
        "_type": STATEMENT,
        "subject": [
            {"name": str(derivation.repository), "digest": _digest_set(manifest.digest)}
            for manifest in reversed(derivation.manifests)
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"source": f"{derivation.repository}@{derivation.source}", "plan": plan},
                "internalParameters": {"planDigest": str(derivation.plan_digest)},
                "resolvedDependencies": [
                    {
                        "name": "source",
                        "uri": f"{derivation.repository}@{derivation.source}",
                        "digest": _digest_set(derivation.source),
                    },
                    *_layers(plan),
                ],
            },
            "runDetails": {"builder": {"id": builder}},
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def unsigned(document: bytes) -> Artifact:
    """Return the statement as an artifact that refers to the image."""
    blob = ArtifactBlob(IN_TOTO, document, {PREDICATE_ANNOTATION: PREDICATE})
    return Artifact(IN_TOTO, (blob,), {PREDICATE_ANNOTATION: PREDICATE})


def _layers(plan: dict[str, Any]) -> list[dict[str, Any]]:
    digests = dict.fromkeys(layer["gzipDigest"] for layer in plan.get("layers", ()))
    return [{"name": "layer", "digest": _digest_set(Digest.parse(digest))} for digest in digests]


def _digest_set(digest: Digest) -> dict[str, str]:
    return {digest.algorithm.value: digest.encoded}

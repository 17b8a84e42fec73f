"""Which client does what with us, as the commands that a person would type.

``test_client_matrix.py`` runs every command; ``python -m tests.e2e.clients`` writes docs/reference/clients.md from the
same table, so a cell of the page is a test that passed. In a command ``HOST/NAME`` is a repository, ``HOST/COPY``
another one; ``layout`` is a folder, ``image.tar`` an archive and ``note.txt`` a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from roadstead.testing.go_clients import CRANE, HELM, ORAS, REGCTL

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "clients.md"
NOTE = "application/vnd.example.note"


class Ability(StrEnum):
    """What a client can be asked for; the value heads a column of the page."""

    PUSH = "push"
    PULL = "pull"
    PLATFORMS = "several platforms"
    FILES = "files"
    ATTACH = "attach"
    DISCOVER = "discover"
    COPY_ATTACHED = "copy with attached"
    LIST = "list tags"
    REPOSITORIES = "list repositories"
    DELETE = "delete"
    ZSTD = "zstd"
    SHA512 = "sha512"


ABOUT: Mapping[Ability, str] = {
    Ability.PUSH: "an image, or a chart, from files here",
    Ability.PULL: "the same back",
    Ability.PLATFORMS: "an image for several platforms goes from one repository to another",
    Ability.FILES: "a plain file goes into an artifact and comes back",
    Ability.ATTACH: "an artifact whose subject is an image (a signature, an SBOM)",
    Ability.DISCOVER: "what is attached to an image",
    Ability.COPY_ATTACHED: "an image goes to another repository with what is attached to it",
    Ability.LIST: "the tags of a repository",
    Ability.REPOSITORIES: "the repositories of the registry",
    Ability.DELETE: "a tag, or the image that it points to",
    Ability.ZSTD: "an image is pushed with layers compressed by Zstandard",
    Ability.SHA512: "an image is pushed whose digests are SHA-512",
}


@dataclass(frozen=True, slots=True)
class Client:
    """A client and what it is asked for: for each ability the commands, one after the other."""

    name: str
    origin: str
    commands: Mapping[Ability, tuple[str, ...]]


CLIENTS: tuple[Client, ...] = (
    Client(
        "docker",
        "Docker's engine as installed, with its classic image store",
        {
            Ability.PUSH: ("docker load --input image.tar", "docker push HOST/NAME:1"),
            Ability.PULL: ("docker pull HOST/NAME:1", "docker image inspect --format {{.Id}} HOST/NAME:1"),
            Ability.PLATFORMS: (
                "docker manifest create --insecure HOST/COPY:multi HOST/NAME:amd64 HOST/NAME:arm64",
                "docker manifest push --insecure HOST/COPY:multi",
            ),
        },
    ),
    Client(
        "podman",
        "Debian",
        {
            Ability.PUSH: ("podman load --input image.tar", "podman push --tls-verify=false HOST/NAME:1"),
            Ability.PULL: (
                "podman pull --tls-verify=false HOST/NAME:1",
                "podman image inspect --format {{.Id}} HOST/NAME:1",
            ),
            Ability.PLATFORMS: (
                "podman manifest create all",
                "podman manifest add --all --tls-verify=false all docker://HOST/NAME:multi",
                "podman manifest push --all --tls-verify=false all docker://HOST/COPY:multi",
            ),
            Ability.LIST: ("podman search --list-tags --tls-verify=false HOST/NAME",),
            Ability.REPOSITORIES: ("podman search --format {{.Name}} --tls-verify=false HOST/NAME",),
            Ability.ZSTD: (
                "podman load --quiet --input image.tar",
                "podman push --format oci --compression-format zstd --tls-verify=false HOST/NAME:1",
            ),
        },
    ),
    Client(
        "skopeo",
        "Debian",
        {
            Ability.PUSH: ("skopeo copy --dest-tls-verify=false oci:layout:1 docker://HOST/NAME:1",),
            Ability.PULL: ("skopeo copy --src-tls-verify=false docker://HOST/NAME:1 oci:out:1",),
            Ability.PLATFORMS: (
                "skopeo copy --all --src-tls-verify=false --dest-tls-verify=false docker://HOST/NAME:multi docker://HOST/COPY:multi",
            ),
            Ability.LIST: ("skopeo list-tags --tls-verify=false docker://HOST/NAME",),
            Ability.DELETE: ("skopeo delete --tls-verify=false docker://HOST/NAME:1",),
            Ability.ZSTD: (
                "skopeo copy --dest-compress-format zstd --dest-tls-verify=false oci:layout:1 docker://HOST/NAME:1",
            ),
        },
    ),
    Client(
        "buildah",
        "Debian",
        {
            Ability.PUSH: (
                "buildah pull docker-archive:image.tar",
                "buildah push --tls-verify=false HOST/NAME:1",
            ),
            Ability.PULL: ("buildah pull --tls-verify=false HOST/NAME:1",),
            Ability.PLATFORMS: (
                "buildah manifest create all",
                "buildah manifest add --all --tls-verify=false all docker://HOST/NAME:multi",
                "buildah manifest push --all --tls-verify=false all docker://HOST/COPY:multi",
            ),
        },
    ),
    Client(
        "containerd",
        "Debian, by its `ctr`",
        {
            Ability.PUSH: ("ctr images import image.tar", "ctr images push --plain-http HOST/NAME:1"),
            Ability.PULL: ("ctr images pull --plain-http HOST/NAME:1", "ctr content ls --quiet"),
            Ability.PLATFORMS: (
                "ctr images pull --plain-http --all-platforms HOST/NAME:multi",
                "ctr images tag HOST/NAME:multi HOST/COPY:multi",
                "ctr images push --plain-http HOST/COPY:multi",
            ),
        },
    ),
    Client(
        "crane",
        CRANE.version,
        {
            Ability.PUSH: ("crane push layout HOST/NAME:1",),
            Ability.PULL: ("crane pull --format=oci HOST/NAME:1 out",),
            Ability.PLATFORMS: ("crane copy HOST/NAME:multi HOST/COPY:multi",),
            Ability.LIST: ("crane ls HOST/NAME",),
            Ability.REPOSITORIES: ("crane catalog HOST",),
            Ability.DELETE: ("crane delete HOST/NAME:1",),
        },
    ),
    Client(
        "regctl",
        REGCTL.version,
        {
            Ability.PUSH: ("regctl image import HOST/NAME:1 image.tar",),
            Ability.PULL: ("regctl image copy HOST/NAME:1 ocidir://out:1",),
            Ability.PLATFORMS: ("regctl image copy HOST/NAME:multi HOST/COPY:multi",),
            Ability.FILES: (
                "regctl artifact put --file note.txt --file-title HOST/NAME:1",
                "regctl artifact get --output out HOST/NAME:1",
            ),
            Ability.ATTACH: (f"regctl artifact put --artifact-type {NOTE} --subject HOST/NAME:1 --file note.txt",),
            Ability.DISCOVER: ("regctl artifact list HOST/NAME:1",),
            Ability.COPY_ATTACHED: ("regctl image copy --referrers HOST/NAME:1 HOST/COPY:1",),
            Ability.LIST: ("regctl tag ls HOST/NAME",),
            Ability.REPOSITORIES: ("regctl repo ls HOST",),
            Ability.DELETE: ("regctl tag delete HOST/NAME:1",),
            Ability.ZSTD: (
                "regctl image copy ocidir://layout:1 HOST/COPY:1",
                "regctl image mod --layer-compress zstd --create HOST/NAME:1 HOST/COPY:1",
            ),
            Ability.SHA512: (
                "regctl image copy ocidir://layout:1 HOST/COPY:1",
                "regctl image mod --digest-algo sha512 --create HOST/NAME:1 HOST/COPY:1",
            ),
        },
    ),
    Client(
        "oras",
        ORAS.version,
        {
            Ability.PUSH: ("oras cp --from-oci-layout layout:1 --to-plain-http HOST/NAME:1",),
            Ability.PULL: ("oras cp --from-plain-http HOST/NAME:1 --to-oci-layout out:1",),
            Ability.PLATFORMS: ("oras cp --from-plain-http --to-plain-http HOST/NAME:multi HOST/COPY:multi",),
            Ability.FILES: (
                "oras push --plain-http HOST/NAME:1 note.txt",
                "oras pull --plain-http --output out HOST/NAME:1",
            ),
            Ability.ATTACH: (f"oras attach --plain-http --artifact-type {NOTE} HOST/NAME:1 note.txt",),
            Ability.DISCOVER: ("oras discover --plain-http HOST/NAME:1",),
            Ability.COPY_ATTACHED: ("oras cp -r --from-plain-http --to-plain-http HOST/NAME:1 HOST/COPY:1",),
            Ability.LIST: ("oras repo tags --plain-http HOST/NAME",),
            Ability.REPOSITORIES: ("oras repo ls --plain-http HOST",),
            Ability.DELETE: ("oras manifest delete --plain-http --force HOST/NAME:1",),
        },
    ),
    Client(
        "helm",
        HELM.version,
        {
            Ability.PUSH: ("helm package chart", "helm push tide-1.2.3+four.tgz oci://HOST/NAME --plain-http"),
            Ability.PULL: (
                "helm package chart",
                "helm push tide-1.2.3+four.tgz oci://HOST/NAME --plain-http",
                "helm pull oci://HOST/NAME/tide --version 1.2.3+four --plain-http --destination out",
            ),
        },
    ),
)

_HEAD = """\
# Clients

*Made from a table of tests by `python -m tests.e2e.clients`.*

Every command on this page is run against `roadstead serve` by the tests, with the client itself, and what it did is
looked up in the registry. An empty cell wasn't tried: most often the client has no command for it. Docker, Podman,
skopeo and buildah are also tested with images that rules add layers to.
"""

_COMMANDS = """\
## Commands

`HOST/NAME` and `HOST/COPY` are repositories. The commands are those for a registry without TLS: with TLS leave out
`--plain-http`, `--insecure`, `--tls-verify=false` and their like; `regctl` is told with `--host reg=HOST,tls=disabled`,
Docker by the engine's `insecure-registries`, and crane finds out by itself on the loopback interface.
"""


def page() -> str:
    """Return docs/reference/clients.md."""
    heads = " | ".join(Ability)
    lines = [_HEAD, f"| client | version | {heads} |", f"|---|---|{'---|' * len(Ability)}"]
    for client in CLIENTS:
        cells = " | ".join("yes" if ability in client.commands else "" for ability in Ability)
        lines.append(f"| {client.name} | {client.origin} | {cells} |")
    lines += ["", *(f"- **{ability}**: {ABOUT[ability]}" for ability in Ability), "", _COMMANDS]
    for client in CLIENTS:
        lines.append(f"### {client.name}\n")
        for ability, commands in client.commands.items():
            lines += [f"{ability.capitalize()}:\n", "```text", *commands, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""Signing in over TLS with real clients, for every kind of credentials, and what each may not do."""

import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.certificates import Authority, key_pem, pem
from tests.e2e.harbour import TOKENS, Clients, Place, TlsServer, open_engine
from tests.integration.token_service import ISSUER, SERVICE, TokenService, token_service_in_thread

from roadstead.testing.components import require
from roadstead.testing.containerd import Containerd, open_containerd
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.images import make_image
from roadstead.testing.layouts import pack_layout, write_layout

POLICIES = """
[[auth.policies]]
subjects = ["authenticated"]
repositories = ["team/**"]
actions = ["pull", "push"]

[[auth.policies]]
subjects = ["authenticated"]
repositories = ["closed/**"]
actions = ["pull"]
"""
PASSWORDS = f'[auth]\nhtpasswd = "users"\naccounts = true\nissue = false\n{POLICIES}'
ISSUED = f"""
[auth]
htpasswd = "users"
accounts = true
{POLICIES}
[[auth.policies]]
subjects = ["everyone"]
repositories = ["public/**"]
actions = ["pull"]

[[auth.policies]]
subjects = ["authenticated"]
repositories = ["public/**"]
actions = ["push"]
"""
FOREIGN_USER, FOREIGN_PASSWORD = "273950", "a personal access token"


@dataclass(slots=True)
class Harbour:
    """One server for each way of signing in, a Docker engine that trusts all of them, and who is who."""

    place: Place
    engine: DockerEngine
    servers: dict[str, TlsServer]
    issuer: TokenService
    passwords: dict[str, str] = field(default_factory=dict)

    def enter(self, way: str) -> tuple[TlsServer, str, str]:
        """Return the server of a way, and the name and the password that are good there."""
        kind, _, who = way.partition(" ")
        if kind == "foreign":
            self.issuer.named = who
            return self.servers[kind], FOREIGN_USER, FOREIGN_PASSWORD
        password = self.passwords[f"{kind} {who}"] if who == "ci" else f"of {who}"
        return self.servers[kind], who, password


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """Three servers: passwords alone, tokens of our own, tokens of somebody else."""
    require("htpasswd", install="apt-get install apache2-utils")
    folder = tmp_path_factory.mktemp("harbour")
    users = f"{output('htpasswd', '-nbB', 'ana', 'of ana')}\nbob:{output('openssl', 'passwd', '-apr1', 'of bob')}\n"
    place = Place(folder)
    # Clients that came over TLS are sent to no token server without it.
    office = Authority.make()
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "tokens.pem").write_text(pem(office.issue(key, TOKENS, (TOKENS,))) + key_pem(key))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "tokens.pem")
    with ExitStack() as stack:
        issuer = stack.enter_context(token_service_in_thread(folder, FOREIGN_USER, FOREIGN_PASSWORD, tls))
        issuer.url = issuer.url.replace("127.0.0.1", TOKENS)
        issuer.trust()
        foreign = (
            f'[auth.token]\nrealm = "{issuer.url}/token"\nservice = "{SERVICE}"\nissuer = "{ISSUER}"\n'
            f'rootcertbundle = "{folder}/bundle.pem"\n'
        )
        servers = {}
        for kind, config in {"passwords": PASSWORDS, "issued": ISSUED, "foreign": foreign}.items():
            (folder / kind).mkdir()
            (folder / kind / "users").write_text(users)
            servers[kind] = stack.enter_context(TlsServer(folder / kind, config))
            place.trust(servers[kind], pem(office.certificate))
        built = Harbour(place, stack.enter_context(open_engine(place)), servers, issuer)
        for kind in ("passwords", "issued"):
            servers[kind].roadstead("user", "add", "carol", given="of carol")
            servers[kind].roadstead("user", "add", "ci", "--robot")
            key = servers[kind].roadstead("key", "create", "ci", "--action", "pull", "--action", "push")
            built.passwords[f"{kind} ci"] = key
        yield built


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


Done: TypeAlias = "subprocess.CompletedProcess[str]"

WAYS = [
    *(f"{kind} {who}" for kind in ("passwords", "issued") for who in ("ana", "bob", "carol", "ci")),
    "foreign libtrust",
    "foreign thumbprint",
]


def login(engine: DockerEngine, server: TlsServer, name: str, password: str, configuration: Path) -> Done:
    words = ("login", "--username", name, "--password", password, server.host)
    return engine.docker(*words, check=False, configuration=configuration)


@pytest.mark.parametrize("way", WAYS)
def test_docker_over_tls(harbour: Harbour, tmp_path: Path, way: str) -> None:
    """It signs in with the right password alone, pushes, pulls, and is refused where it may only pull."""
    server, name, password = harbour.enter(way)
    docker, unique = harbour.engine.docker, uuid4().hex[:12]
    good, closed = f"{server.host}/team/{unique}:1", f"{server.host}/closed/{unique}:1"
    harbour.engine.import_busybox(good)
    docker("tag", good, closed)
    wrong = login(harbour.engine, server, name, "wrong", tmp_path)
    unasked = docker("push", good, check=False, configuration=tmp_path)
    right = login(harbour.engine, server, name, password, tmp_path)
    assert right.returncode == 0, right.stdout + right.stderr

    docker("push", good, configuration=tmp_path)
    docker("rmi", good)
    docker("pull", good, configuration=tmp_path)
    refused = docker("push", closed, check=False, configuration=tmp_path)

    docker("rmi", good, closed)
    assert (wrong.returncode, unasked.returncode, refused.returncode) == (1, 1, 1)
    assert "unauthorized" in (wrong.stdout + wrong.stderr).lower()
    assert "denied" in refused.stdout + refused.stderr or "unauthorized" in refused.stdout + refused.stderr


def test_docker_wants_a_certificate_that_it_trusts(harbour: Harbour, tmp_path: Path) -> None:
    """Without ours in certs.d there is no sign-in: what the other tests do goes over TLS that was checked."""
    server, name, password = harbour.enter("passwords ana")
    kept = harbour.place.docker / "certs.d" / server.host
    kept.rename(kept.with_name("away"))
    try:
        refused = login(harbour.engine, server, name, password, tmp_path)
    finally:
        kept.with_name("away").rename(kept)

    assert refused.returncode == 1
    assert "certificate" in refused.stderr


def test_everybody_pulls_and_some_push(harbour: Harbour, tmp_path: Path) -> None:
    """A stranger's Docker pulls what was pushed by somebody who had signed in, and can't push."""
    server, name, password = harbour.enter("issued carol")
    signed_in, stranger = tmp_path / "signed-in", tmp_path / "stranger"
    docker, image = harbour.engine.docker, f"{server.host}/public/{uuid4().hex[:12]}:1"
    harbour.engine.import_busybox(image)
    refused = docker("push", image, check=False, configuration=stranger)
    login(harbour.engine, server, name, password, signed_in)
    docker("push", image, configuration=signed_in)
    docker("rmi", image)

    docker("pull", image, configuration=stranger)

    docker("rmi", image)
    assert refused.returncode == 1


# Other clients

Round = Callable[[Clients, TlsServer, str, "tuple[str, str] | None"], Done]


def skopeo(clients: Clients, server: TlsServer, name: str, who: tuple[str, str] | None) -> Done:
    credentials = [f"--{{}}-creds={':'.join(who)}"] if who else []
    image = f"docker://{server.host}/{name}:1"
    there = [word.format("dest") for word in credentials]
    back = [word.format("src") for word in credentials]
    pushed = clients.run("skopeo", "--insecure-policy", "copy", *there, "oci:layout:1", image)
    return pushed if pushed.returncode else clients.run("skopeo", "--insecure-policy", "copy", *back, image, "oci:out")


def crane(clients: Clients, server: TlsServer, name: str, who: tuple[str, str] | None) -> Done:
    if who:
        clients.run("crane", "auth", "login", server.host, "-u", who[0], "-p", who[1])
    pushed = clients.run("crane", "push", "layout", f"{server.host}/{name}:1")
    return pushed if pushed.returncode else clients.run("crane", "pull", f"{server.host}/{name}:1", "out.tar")


def oras(clients: Clients, server: TlsServer, name: str, who: tuple[str, str] | None) -> Done:
    if who:
        clients.run("oras", "login", server.host, "--username", who[0], "--password-stdin", given=who[1])
    pushed = clients.run("oras", "cp", "--from-oci-layout", "layout:1", f"{server.host}/{name}:1")
    back = ("oras", "cp", f"{server.host}/{name}:1", "--to-oci-layout", "out:1")
    return pushed if pushed.returncode else clients.run(*back)


def helm(clients: Clients, server: TlsServer, name: str, who: tuple[str, str] | None) -> Done:
    if who:
        clients.run("helm", "registry", "login", server.host, "--username", who[0], "--password-stdin", given=who[1])
    (clients.home / "chart").mkdir()
    (clients.home / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: tide\nversion: 1.2.3\n")
    clients.run("helm", "package", "chart")
    pushed = clients.run("helm", "push", "tide-1.2.3.tgz", f"oci://{server.host}/{name}")
    back = ("helm", "pull", f"oci://{server.host}/{name}/tide", "--version", "1.2.3", "--destination", "layout")
    return pushed if pushed.returncode else clients.run(*back)


REFUSED = ("unauthorized", "denied", "forbidden", "credential not found")
ROUNDS: dict[str, Round] = {each.__name__: each for each in (skopeo, crane, oras, helm)}


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with open_containerd() as daemon:
        yield daemon


def write_image(folder: Path, name: str) -> None:
    """Write an image whose layers nobody has seen, as a layout and as an archive."""
    image = make_image(layers=2, seed=uuid4().hex)
    write_layout(folder / "layout", image, name=name)
    pack_layout(folder / "layout", folder / "image.tar")


@pytest.mark.parametrize("way", ["passwords ci", "issued ana", "foreign libtrust"])
@pytest.mark.parametrize("client", ROUNDS)
def test_others_over_tls(harbour: Harbour, tmp_path: Path, client: str, way: str) -> None:
    """There and back with credentials; not without, and not where only pulling is allowed."""
    server, name, password = harbour.enter(way)
    unique = uuid4().hex[:12]
    done = {}
    for case, repository, who in (
        ("stranger", f"team/{unique}", None),
        ("closed", f"closed/{unique}", (name, password)),
        ("good", f"team/{unique}", (name, password)),
    ):
        (tmp_path / case).mkdir()
        write_image(tmp_path / case, f"{server.host}/{repository}:1")
        clients = Clients(harbour.place, tmp_path / case, server)
        done[case] = ROUNDS[client](clients, server, repository, who)

    assert done["good"].returncode == 0, done["good"].stderr
    for case in ("stranger", "closed"):
        assert done[case].returncode != 0, case
        assert any(word in done[case].stderr.lower() for word in REFUSED), done[case]


@pytest.mark.parametrize("way", ["passwords bob", "issued carol", "foreign thumbprint"])
def test_containerd_over_tls(harbour: Harbour, containerd: Containerd, tmp_path: Path, way: str) -> None:
    """`ctr` pushes and pulls with credentials, and neither without."""
    server, name, password = harbour.enter(way)
    image = f"{server.host}/team/{uuid4().hex[:12]}:1"
    write_image(tmp_path, image)
    clients = Clients(harbour.place, tmp_path, server)
    ctr = ("ctr", "--address", str(containerd.socket))
    containerd.ctr("images", "import", str(tmp_path / "image.tar"))
    trust = ("--tlscacert", str(harbour.place.trusted(server)))
    credentials = ("--user", f"{name}:{password}")

    refused = clients.run(*ctr, "images", "push", *trust, image)
    pushed = clients.run(*ctr, "images", "push", *trust, *credentials, image)
    containerd.ctr("images", "rm", image)
    unasked = clients.run(*ctr, "images", "pull", "--snapshotter", "native", *trust, image)
    pulled = clients.run(*ctr, "images", "pull", "--snapshotter", "native", *trust, *credentials, image)

    assert pushed.returncode == 0, pushed.stderr
    assert pulled.returncode == 0, pulled.stderr
    assert 0 not in (refused.returncode, unasked.returncode)
    assert "uthoriz" in refused.stderr

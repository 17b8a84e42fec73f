"""AWS's interfaces for tests: moto's server on a free port of the loopback interface.

``pip install 'moto[server]'`` brings it. It keeps everything in memory, and lets everybody in until `deny_strangers`.
"""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

from roadstead.testing.components import ComponentMissingError
from roadstead.testing.ports import free_port
from roadstead.testing.servers import Process

INSTALL: Final = "pip install 'moto[server]'"
REGION: Final = "eu-west-1"


class AwsServer:
    """One server; everything it holds goes with it."""

    def __init__(self, directory: Path) -> None:
        if find_spec("moto") is None or find_spec("flask") is None:
            raise ComponentMissingError("moto_server", INSTALL)
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._process = Process(command, log=directory / "moto.log")

    def __enter__(self) -> Self:
        self._process.start()
        self._process.wait_ready(self._answers, timeout=timedelta(seconds=60))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which AWS's libraries find this server, as its owner."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "owner",
            "AWS_SECRET_ACCESS_KEY": "owner",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def call(self, service: str, name: str, **arguments: object) -> Mapping[str, Any]:
        """Call one of AWS's functions (``create_secret`` of ``secretsmanager``) as the owner."""
        # A test that doesn't speak to AWS need not wait for its library.
        from botocore.session import get_session

        client = get_session().create_client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="owner",
            aws_secret_access_key="owner",  # noqa: S106 -- any will do
        )
        try:
            answer: Mapping[str, Any] = getattr(client, name)(**arguments)
        finally:
            client.close()
        return answer

    def make_user(self, name: str, actions: list[str]) -> Mapping[str, str]:
        """Make somebody who may do these things alone; return the variables with his key."""
        self.call("iam", "create_user", UserName=name)
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.call("iam", "put_user_policy", UserName=name, PolicyName="only", PolicyDocument=policy)
        key = self.call("iam", "create_access_key", UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def deny_strangers(self) -> None:
        """From now on look at who asks, and what he may do."""
        address, kind = f"{self.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, data=b"0", headers=kind, method="POST")  # noqa: S310 -- our own server
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 -- our own server
            pass

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/moto-api/", timeout=2):  # noqa: S310 -- our own server
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False

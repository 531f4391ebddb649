"""Token authentication of Ray: whoever reaches an unauthenticated Ray can run code on all of its nodes.

A local Ray always gets a token. A joined one is asked, without a token, whether it refuses such requests.
"""

import logging
import os
import secrets
from pathlib import Path

from schemas.errors import HumoError

_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_GCS_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_CLIENT_METHOD = "/ray.rpc.RayletDriver/ClusterInfo"
_CLIENT_SCHEME = "ray://"
_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


def authenticate_local_ray(*, require_token: bool) -> None:
    """Set the environment so that a Ray started by this process refuses everybody else: token mode, with the user's token if
    there is one, or else one that only this process and its children know.

    RAY_AUTH_MODE=disabled is obeyed with a warning; with `require_token` it raises HumoError.
    """
    mode = os.environ.setdefault(_MODE, "token")
    if mode.lower() != "token":
        _accept_unauthenticated(
            f"the local Ray is started with {_MODE}={mode}", "unset it", require_token=require_token
        )
    elif not (os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH) or default_token_path().exists()):
        os.environ[_TOKEN] = secrets.token_hex(32)


def authenticate_to(address: str) -> None:
    """Set the environment for joining the Ray at an address: token mode if the user named a token.

    Raises HumoError if that Ray requires a token and there is none, which Ray itself reports as a connection that timed out.
    """
    if os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH):
        os.environ.setdefault(_MODE, "token")
    if os.environ.get(_MODE, "").lower() != "token" and ":" in address and requires_token(address):
        raise HumoError(
            f"engine.address: the Ray at {address} requires a token; set {_MODE}=token and {_TOKEN}, or {_TOKEN_PATH} to a file "
            "with it"
        )


def check_joined(address: str, *, require_token: bool) -> None:
    """Warn, or raise HumoError with `require_token`, unless the Ray at an address refuses requests without a token."""
    required = requires_token(address)
    if not required:
        finding = (
            "accepts requests without a token" if required is False else "cannot be asked whether it requires a token"
        )
        _accept_unauthenticated(
            f"the Ray at {address} {finding}", f"start its nodes with {_MODE}=token", require_token=require_token
        )


def _accept_unauthenticated(finding: str, remedy: str, *, require_token: bool) -> None:
    consequence = f"{finding}: whoever reaches it over the network can run code as this user; {remedy}"
    if require_token:
        raise HumoError(f"engine.require_token: {consequence}, or set engine.require_token to false")
    _log.warning("%s", consequence)


def requires_token(address: str) -> bool | None:
    """Whether the Ray at `host:port` or `ray://host:port` refuses a harmless request without a token; None if nothing answers."""
    import grpc

    method = _CLIENT_METHOD if address.startswith(_CLIENT_SCHEME) else _GCS_METHOD
    options = [("grpc.enable_http_proxy", 0)]  # as Ray's own channels
    with grpc.insecure_channel(address.removeprefix(_CLIENT_SCHEME), options) as channel:
        try:
            # An empty message and an uninterpreted reply: the status alone matters.
            channel.unary_unary(method)(b"", timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return None
            return bool(code is grpc.StatusCode.UNAUTHENTICATED)
    return False


def default_token_path() -> Path:
    """Where Ray looks for a token that the environment does not name."""
    return Path.home() / ".ray" / "auth_token"

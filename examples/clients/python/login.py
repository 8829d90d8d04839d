"""Calls BeginLogin and CompleteLogin from Python. Run it against the quickstart:

    pip install grpcio grpcio-tools grpcio-status protobuf
    python -m grpc_tools.protoc -I ../../../proto --python_out=. --grpc_python_out=. \\
        peerpanda/sso/v1/login.proto peerpanda/sso/v1/connection.proto
    python login.py 127.0.0.1:50051 demo
"""
import secrets
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from peerpanda.sso.v1 import login_pb2, login_pb2_grpc


def reason(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """Returns a refusal's reason, and its cause, owner and retry in the metadata."""
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        if detail.Unpack(info):
            break
    return info


target, slug = sys.argv[1], sys.argv[2]
sso = login_pb2_grpc.LoginServiceStub(grpc.insecure_channel(target))

# At /app/accounts/oidc/{slug}/login/: store the binding in a cookie of this browser, and redirect
# the browser to redirect_url.
binding = secrets.token_urlsafe(24)
begun = sso.BeginLogin(
    login_pb2.BeginLoginRequest(slug=slug, return_to="/reports", browser_binding=binding), timeout=25
)
print("send the browser to", begun.redirect_url.split("?")[0])

# At .../login/callback/: pass on the query's parameters and the binding of the cookie. The code is
# made up here, so the service refuses it and says why.
try:
    done = sso.CompleteLogin(
        login_pb2.CompleteLoginRequest(slug=slug, code="made-up", state=begun.state, browser_binding=binding), timeout=25
    )
    print("welcome", done.identity.email, "now to", done.return_to)
except grpc.RpcError as error:
    info = reason(error)
    print("refused:", info.reason, dict(info.metadata))

"""Asks a MCIAS by gRPC what it is, without any code made from its .proto.

Arguments: address, file of the authority, the name in its certificate. Prints its services, the health of each, what it answers
to a call that needs no token, and what it says where a token is missing and where a message is too large.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

address, authority, name = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(open(authority, "rb").read())
channel = grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", name)])


class V1(ProtoReflectionDescriptorDatabase):
    """The library's stub is of v1alpha, the message the same: the path alone is another."""

    def __init__(self, channel):
        super().__init__(channel)
        self._stub.ServerReflectionInfo = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )


database = V1(channel)
pool = descriptor_pool.DescriptorPool(database)
services = sorted(database.get_services())


def call(service, method, **fields):
    described = pool.FindServiceByName(service).FindMethodByName(method)
    asked = message_factory.GetMessageClass(described.input_type)
    told = message_factory.GetMessageClass(described.output_type)
    stub = channel.unary_unary(
        f"/{service}/{method}", request_serializer=asked.SerializeToString, response_deserializer=told.FromString
    )
    return json_format.MessageToDict(stub(asked(**fields), timeout=10), preserving_proto_field_name=True)


keys = call("metacircular.mcias.v1.Identity", "GetKeySet")
stub = health_pb2_grpc.HealthStub(channel)
ours = [service for service in services if service.startswith("metacircular.")]
health = {
    name: stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status for name in ["", *ours]
}
refused = None
try:
    call("metacircular.mcias.v1.Accounts", "ListAccounts")
except grpc.RpcError as error:
    info = error_details_pb2.ErrorInfo()
    details = rpc_status.from_call(error).details
    assert any(detail.Unpack(info) for detail in details), details
    refused = {"code": error.code().name, "reason": info.reason}
too_large = None
try:
    # More than server.max_body_bytes, and less than what gRPC takes by itself.
    call("metacircular.mcias.v1.Identity", "GetLink", secret="x" * 2_000_000)
except grpc.RpcError as error:
    too_large = error.code().name
told = {"services": services, "health": health, "keys": keys, "refused": refused, "too_large": too_large}
print(json.dumps(told))

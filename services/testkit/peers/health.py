"""Watches a service's health by gRPC while it is stopped.

Arguments: address, file of the authority, the name in its certificate, the process id. Prints the services that reflection v1alpha
lists, and each status of the whole server until the stream ends.
"""

import json
import os
import signal
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, authority, name, pid = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(open(authority, "rb").read())
channel = grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", name)])
services = sorted(ProtoReflectionDescriptorDatabase(channel).get_services())
watched = []
try:
    for status in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=30):
        watched.append(status.status)
        if len(watched) == 1:
            os.kill(int(pid), signal.SIGTERM)
except grpc.RpcError as error:
    watched.append(error.code().name)
print(json.dumps({"services": services, "watched": watched}))

"""Writes the ASN database that tests use: documentation networks with documentation numbers (RFC 5398).

Usage: asn_mmdb.py FILE. The keys are those of the usual ASN databases.
"""

import sys

from mmdb_writer import MMDBWriter
from netaddr import IPSet

NETWORKS = {
    "192.0.2.0/24": (64496, "Documentation One"),
    "198.51.100.0/24": (64497, "Documentation Two"),
    "203.0.113.0/24": (64498, "Documentation Three"),
    "10.64.96.0/24": (64499, "Test Namespace"),
    "2001:db8:1::/48": (64496, "Documentation One"),
    "2001:db8:2::/48": (64497, "Documentation Two"),
    "2001:db8:3::/48": (65536, "Documentation Four Bytes"),
}

writer = MMDBWriter(
    ip_version=6,
    ipv4_compatible=True,
    database_type="Metacircular-Test-ASN",
    languages=["en"],
    description="Documentation networks for tests",
    int_type="u32",
)
for network, (number, organization) in NETWORKS.items():
    writer.insert_network(
        IPSet([network]),
        {"autonomous_system_number": number, "autonomous_system_organization": organization},
    )
writer.to_db_file(sys.argv[1])

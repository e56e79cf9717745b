"""Writes small databases of countries and autonomous systems for tests: country.mmdb and asn.mmdb.

Usage: databases.py FOLDER. Documentation networks, with documentation numbers (RFC 5398).
"""

import sys

from mmdb_writer import MMDBWriter
from netaddr import IPSet

COUNTRIES = {"203.0.113.0/24": "CN", "192.0.2.0/24": "DE", "2001:db8:3::/48": "CN"}
SYSTEMS = {
    "192.0.2.0/24": 64496,
    "198.51.100.0/24": 64497,
    "2001:db8:1::/48": 64496,
    "2001:db8:2::/48": 64497,
}


def write(path, kind, rows):
    writer = MMDBWriter(
        ip_version=6, ipv4_compatible=True, database_type=kind, languages=["en"], description=kind, int_type="u32"
    )
    for network, value in rows.items():
        writer.insert_network(IPSet([network]), value)
    writer.to_db_file(path)


folder = sys.argv[1]
write(f"{folder}/country.mmdb", "Test-Country", {net: {"country_code": code} for net, code in COUNTRIES.items()})
write(
    f"{folder}/asn.mmdb",
    "Test-ASN",
    {net: {"autonomous_system_number": number} for net, number in SYSTEMS.items()},
)

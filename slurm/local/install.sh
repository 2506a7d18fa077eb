#!/usr/bin/env bash
# Install Debian's Slurm and the other packages that up.sh needs, as root. The packages' own services are not used.
set -euo pipefail
packages=(slurmctld slurmd slurm-client munge slurmdbd mariadb-server-core mariadb-client-core iproute2 shellcheck)
[ "$(id -u)" = 0 ] || { echo "slurm/local/install.sh: installing packages needs root" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "slurm/local/install.sh: no apt-get here; install by hand: ${packages[*]}" >&2; exit 1; }
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null

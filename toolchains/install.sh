#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the Debian packages that a command needs and the machine lacks.
#
#   toolchains/install.sh build|run|test|load|cross|bench|chaos|fuzz|compose|pictures|format ...
#
# dpkg is asked first, so that nothing happens where nothing is missing. Nothing that a package brings is started:
# while packages are installed a policy-rc.d says no (one that is there already is left alone), PostgreSQL is told not
# to make a cluster, and services that came with this installation are not left enabled for the next boot.
set -eu

build='gcc libc6-dev cmake ninja-build pkg-config libwolfssl-dev librabbitmq-dev libpq-dev libjsmn-dev libcmocka-dev'
chaos='iproute2 nftables mount'
run="$build python3 rabbitmq-server postgresql alembic python3-psycopg2 python3-pika python3-websockets curl"
load='python3-locust python3-websocket'
pages='chromium chromium-driver python3-selenium fonts-dejavu-core prometheus python3-prometheus-client'
packages=
for group in "$@"; do
    case $group in
    build) packages="$packages $build" ;;
    run) packages="$packages $run" ;;
    bench) packages="$packages $run" ;;
    chaos) packages="$packages $chaos" ;;
    load) packages="$packages $load" ;;
    pictures) packages="$packages $pages" ;;
    test) packages="$packages $run $load $pages $chaos python3-pytest clang clang-tidy clang-format libclang-rt-14-dev llvm mandoc" ;;
    fuzz) packages="$packages $build python3 clang libclang-rt-14-dev llvm" ;;
    cross) packages="$packages $build qemu-user-static" ;;
    compose) packages="$packages python3-pytest python3-websocket docker.io docker-compose mmdebstrap" ;;
    aarch64) packages="$packages gcc-aarch64-linux-gnu" ;;
    armhf) packages="$packages gcc-arm-linux-gnueabihf" ;;
    x86_64) [ "$(uname -m)" = x86_64 ] || packages="$packages gcc-x86-64-linux-gnu" ;;
    format) packages="$packages clang-format" ;;
    *) echo "install.sh: no such group: $group" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    echo "This is not Debian: see to it yourself that these are there (Debian's names):$packages" >&2
    exit 0
fi

missing=
for package in $(printf '%s\n' $packages | sort -u); do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true) in
    installed) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo > /dev/null; then
    as_root=sudo
else
    printf 'Packages are missing and there is no sudo. As root, run:\n  apt-get install --no-install-recommends%s\n' \
        "$missing" >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d
ours=
our_folder=
log=$(mktemp)
clean_up() {
    for file in $ours; do
        $as_root rm -f "$file"
    done
    [ -z "$our_folder" ] || $as_root rmdir "$our_folder" 2> /dev/null || true
    rm -f "$log"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# put FILE MODE TEXT: writes a file that clean_up removes.
put() {
    ours="$ours $1"
    printf '%s\n' "$3" | $as_root tee "$1" > /dev/null
    $as_root chmod "$2" "$1"
}

apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=5 \
        -o Dpkg::Options::=--force-confold --no-install-recommends "$@" < /dev/null > "$log" 2>&1
}

# The services that would start by themselves.
services() {
    for unit in rabbitmq-server.service postgresql.service epmd.service epmd.socket docker.service docker.socket \
        containerd.service prometheus.service; do
        if [ -e "/lib/systemd/system/$unit" ] || [ -e "/usr/lib/systemd/system/$unit" ]; then
            echo "$unit"
        fi
    done
}

echo "Installing:$missing"
before=$(services)
if [ ! -e "$policy" ]; then
    put "$policy" 755 '#!/bin/sh
exit 101'
fi
apt update || echo "(apt-get update had trouble; trying with what is known)"
case $missing in
*postgresql*)
    apt install postgresql-common || { cat "$log" >&2; exit 1; }
    if grep -qs "^include_dir.*createcluster.d" "${no_cluster%.d}.conf"; then
        if [ ! -d "$no_cluster" ]; then
            our_folder=$no_cluster
            $as_root mkdir "$no_cluster"
        fi
        put "$no_cluster/postern-temporary.conf" 644 'create_main_cluster = false'
    fi
    ;;
esac
apt install $missing || {
    cat "$log" >&2
    echo "apt-get could not install everything (above)." >&2
    exit 1
}
if command -v systemctl > /dev/null; then
    for unit in $(services); do
        case $before in
        *"$unit"*) ;;
        *) $as_root systemctl --quiet disable "$unit" > /dev/null 2>&1 || true ;;
        esac
    done
fi

#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes a Debian sysroot for another architecture out of packages; needs apt, dpkg, tar and awk, and no root.
#
#   toolchains/sysroot.sh ARCHITECTURE FOLDER [package...]      (Debian's names: arm64, armhf, amd64)
#
# apt works on a state of its own inside FOLDER, so the machine learns of no foreign architecture. A sysroot that is
# there and complete for the same packages is left as it is. FOLDER must not be moved afterwards.
set -eu
architecture=$1
folder=$2
shift 2
packages=${*:-libc6-dev libwolfssl-dev librabbitmq-dev libpq-dev libjsmn-dev libcmocka-dev}

stamp=$folder/.complete
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$architecture: $packages" ]; then
    exit 0
fi

rm -rf "$folder"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd -P)
stamp=$folder/.complete
state=$folder/.apt
database=$folder/var/lib/dpkg
mkdir -p "$state/lists/partial" "$state/archives/partial" "$database/info" "$database/updates"
: > "$database/status"

# The Debian repositories this machine knows, for that architecture.
known_repositories() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' \
        'Created-By: Packages' "Architecture: $(dpkg --print-architecture)" |
        awk -v a="$architecture" '$4 == "Debian" {
            print "deb [arch=" a " signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " $1, $2, $3 }' |
        sort -u
}
known_repositories > "$state/all.list"
if [ ! -s "$state/all.list" ]; then
    echo "sysroot.sh: no Debian repository known here; run apt-get update once" >&2
    exit 1
fi

private_apt() {
    apt-get -q -y -o Dir::State="$state" -o Dir::State::status="$database/status" -o Dir::Cache="$state" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o Dir::Etc::sourcelist="$state/use.list" -o Dir::Etc::sourceparts=- \
        -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
        -o APT::Sandbox::User= -o Debug::NoLocking=true -o APT::Install-Recommends=false \
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Keep-Downloaded-Packages=true "$@"
}

fetch() {
    private_apt --error-on=any update && private_apt --download-only install $packages
}

cp "$state/all.list" "$state/use.list"
if ! fetch; then
    # A mirror whose -security lags behind: the base suite alone still gives a whole sysroot.
    echo "sysroot.sh: taking the base suite alone"
    grep -v -e -security -e -updates "$state/all.list" > "$state/use.list"
    rm -rf "$state/lists"
    mkdir -p "$state/lists/partial"
    fetch
fi

for package in "$state"/archives/*.deb; do
    dpkg-deb -x "$package" "$folder"
    # A dpkg database, so that dpkg-shlibdeps finds who owns a library.
    name=$(dpkg-deb -f "$package" Package)
    if [ "$(dpkg-deb -f "$package" Multi-Arch)" = same ]; then
        name=$name:$architecture
    fi
    { dpkg-deb -f "$package"; printf 'Status: install ok installed\n\n'; } >> "$database/status"
    dpkg-deb --fsys-tarfile "$package" | tar t | sed -e "s#^\./#$folder/#" -e 's#/$##' > "$database/info/$name.list"
    for control in symbols shlibs; do
        dpkg-deb --ctrl-tarfile "$package" | tar xO ./$control > "$database/info/$name.$control" 2> /dev/null ||
            rm -f "$database/info/$name.$control"
    done
done
echo 1 > "$database/info/format"
echo "$architecture" > "$database/arch"

# Debian's libm.so and others are absolute links, which lead out of the sysroot.
find "$folder" -type l -lname '/*' | while IFS= read -r link; do
    ln -sfr "$folder$(readlink "$link")" "$link"
done
rm -rf "$state"
echo "$architecture: $packages" > "$stamp"

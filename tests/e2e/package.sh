#!/usr/bin/env bash
# Installs, uses, removes and purges the package on a copy of this machine: an overlay over
# its root, in a mount namespace that the caller made for us. Says each step that held.
# usage: package.sh FILE.deb
set -euo pipefail
deb=$(realpath "$1")
top=$(mktemp -d)
trap 'umount --lazy "$top" && rmdir "$top"' EXIT
mount -t tmpfs tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/tree"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/tree"
for at in proc sys dev; do mount --rbind "/$at" "$top/tree/$at"; done
mount -t tmpfs tmpfs "$top/tree/run"
cp "$deb" "$top/tree/everflame.deb"
inside() { chroot "$top/tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ DEBIAN_FRONTEND=noninteractive "$@"; }
there() { [ -e "$top/tree/$1" ] || { echo "package: $1 is missing" >&2 && exit 1; }; }

inside dpkg --install /everflame.deb
there usr/lib/systemd/system/everflame-agent.service
there etc/everflame/agent.toml
echo "package: installed"

inside everflame --version
inside everflame server --config /etc/everflame/server.toml --listen 127.0.0.1:0 --duration 1
there var/lib/everflame-server/server
inside everflame agent --config /etc/everflame/agent.toml --endpoint http://127.0.0.1:9 --listen 127.0.0.1:0 --duration 1
there var/lib/everflame-agent/spool
# The unit's user is one of its own; a token that root makes beside it is that user's too.
data=/var/lib/everflame-server
rm -rf "$top/tree$data" && install -d -o 61234 -g 61234 "$top/tree$data"
inside setpriv --reuid 61234 --regid 61234 --clear-groups everflame server --config /etc/everflame/server.toml --listen 127.0.0.1:0 --duration 1
inside everflame token create --role admin --data "$data" >/dev/null
[ "$(stat -c %u:%g "$top/tree$data/server/tokens.json")" = 61234:61234 ]
echo "package: used"

echo "# a person's own line" >>"$top/tree/etc/everflame/agent.toml"
inside dpkg --install /everflame.deb
grep -q "own line" "$top/tree/etc/everflame/agent.toml"
echo "package: settings kept"

inside dpkg --remove everflame
there etc/everflame/agent.toml
there var/lib/everflame-server/server
[ ! -e "$top/tree/usr/bin/everflame" ]
echo "package: removed"

inside dpkg --purge everflame
rm "$top/tree/everflame.deb"
left=$(find "$top/upper" -path '*everflame*' -print)
[ -z "$left" ] || { echo "package: left behind: $left" >&2 && exit 1; }
echo "package: purged"

#!/usr/bin/env bash
# Boots a real systemd with tailwire's system units and nothing else: in namespaces of its own (processes, mounts, network,
# control groups), on a root in memory that has this machine's /usr to read and nothing of it to write. Ends with its first
# process. Takes root; `boot.sh BINARY READY` writes the process id of that systemd to READY.
#
# It must never see this machine's own root: systemd's start cleans /tmp, sets kernel parameters and starts what is enabled.
set -euo pipefail

binary=$(realpath "$1")
ready=$2
units=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../../deploy/systemd/system")

if [[ ! ${3-} ]]; then
    # A control group of its own, or that systemd would take this machine's for its own.
    groups=$(mktemp -d)
    root=$(mktemp -d)
    mount -t cgroup2 none "$groups"
    group=$groups/tailwire-boot-$$
    mkdir "$group"
    leave() {
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
        umount "$groups" && rmdir "$groups" "$root"
    }
    trap leave EXIT
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec unshare --mount --pid --fork --kill-child --net --uts --ipc --cgroup --propagation private \
            bash "$0" "$binary" "$ready" "$root"
    ) &
    child=$!
    # Whoever wants to look inside enters by its first process.
    until pgrep --parent "$child" >"$ready.part"; do
        kill -0 "$child" || exit 1
        sleep 0.05
    done
    mv "$ready.part" "$ready"
    # The first process takes all others with it.
    trap 'kill -KILL $(pgrep --parent "$child") 2>/dev/null || true; wait "$child" || true; leave' EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    wait "$child" || true
    exit 0
fi

ip link set lo up
root=$3
mount -t tmpfs tmpfs "$root"
cd "$root"
mkdir -p usr etc/systemd/system/multi-user.target.wants etc/systemd/system/sockets.target.wants etc/tailwire etc/ssl \
    run tmp var/lib var/tmp proc sys dev old root
for link in bin sbin lib lib64; do
    [[ -e /usr/$link ]] && ln -s "usr/$link" "$link"
done
mount --bind /usr usr
mount -o remount,bind,ro usr
# None of this machine's units, generators and settings of the kernel.
for folder in system-generators user-generators system-environment-generators; do
    [[ -d usr/lib/systemd/$folder ]] && mount -t tmpfs tmpfs "usr/lib/systemd/$folder"
done
for folder in sysctl.d tmpfiles.d modules-load.d sysusers.d binfmt.d; do
    [[ -d usr/lib/$folder ]] && mount -t tmpfs tmpfs "usr/lib/$folder"
done
mount -t tmpfs tmpfs usr/lib/systemd/system
for target in sysinit basic sockets timers paths slices multi-user local-fs shutdown umount final network-online network; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"usr/lib/systemd/system/$target.target"
done
printf 'Requires=sysinit.target\nWants=sockets.target\nAfter=sysinit.target sockets.target\n' >>usr/lib/systemd/system/basic.target
printf 'Requires=basic.target\nAfter=basic.target\n' >>usr/lib/systemd/system/multi-user.target
mount -t tmpfs tmpfs usr/local
mkdir usr/local/bin
cp "$binary" usr/local/bin/tailwire
chmod 755 usr/local/bin/tailwire
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
# Its own, or systemd would mount the one that the whole machine shares.
mount -t tmpfs -o mode=755 tmpfs dev
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"
done
mknod -m 666 dev/tty c 5 0
mknod -m 666 dev/ptmx c 5 2
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
mount -t tmpfs tmpfs dev/hugepages
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n' >etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\n' >etc/group
printf '127.0.0.1 localhost\n' >etc/hosts
printf 'passwd: files\ngroup: files\nhosts: files\n' >etc/nsswitch.conf
printf '%032d\n' 1 >etc/machine-id
[[ -d /etc/ssl ]] && mount --bind /etc/ssl etc/ssl && mount -o remount,bind,ro etc/ssl

cp "$units"/tailwire.* etc/systemd/system/
# Signs of life at every half second, so that a test need not wait for half a minute.
mkdir etc/systemd/system/tailwire.service.d
printf '[Service]\nWatchdogSec=1s\n' >etc/systemd/system/tailwire.service.d/test.conf
ln -s ../tailwire.service etc/systemd/system/multi-user.target.wants/
ln -s ../tailwire.socket etc/systemd/system/sockets.target.wants/
printf 'upstream = "http://127.0.0.1:8585/v1"\n' >etc/tailwire/proxy.toml
cat >etc/systemd/system/provider.service <<'EOF'
[Service]
ExecStart=/usr/local/bin/tailwire sim
EOF
ln -s ../provider.service etc/systemd/system/multi-user.target.wants/

pivot_root . old
umount --lazy old
exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --unit=multi-user.target \
    --log-target=console --log-level=notice --show-status=no </dev/null

#!/bin/busybox sh
# The first process of a machine: mounts what it shares with its host, and becomes the shell that runs the command.
# /parameters sets: release (the kernel's), hostname, shares (TAG:PLACE…, places in the new root), layers (the same, but
# what is written there goes to memory), keep (folders of the new root that stay visible where it is mounted over).
export PATH=/bin
/bin/busybox --install -s /bin
# shellcheck disable=SC1091
. /parameters

fail() {
    echo "leaktrace: $1"
    poweroff -f
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
    [ ! -e "$module" ] || insmod "$module" || fail "the kernel refuses $module"
done

# The host's files, which are only read; what is written goes to memory.
mount -t virtiofs -o ro root /lower || fail "the host's files are not there"
mount -t tmpfs -o size=60% tmpfs /upper
mkdir /upper/root /upper/root.aside
mount -t overlay -o lowerdir=/lower,upperdir=/upper/root,workdir=/upper/root.aside overlay /root || fail "no overlay"

# cover PLACE OPTIONS: an empty file system in memory.
cover() {
    mkdir -p "/root$1"
    mount -t tmpfs -o "$2" tmpfs "/root$1"
}

# What shall stay is held elsewhere meanwhile, as a part of the overlay.
for folder in $keep; do
    mkdir -p "/kept$folder"
    mount --bind "/root$folder" "/kept$folder"
done
cover /run mode=755
# Under an overlay a file's device is not the one that /proc/PID/maps names, and few machines have an overlay at /tmp.
cover /tmp mode=1777
mkdir /root/run/leaktrace
for share in $shares; do
    mkdir -p "/root${share#*:}"
    mount -t virtiofs "${share%%:*}" "/root${share#*:}" || fail "the share $share is not there"
done
for layer in $layers; do
    tag=${layer%%:*}
    mkdir -p "/layers/$tag" "/upper/$tag" "/upper/$tag.aside" "/root${layer#*:}"
    mount -t virtiofs -o ro "$tag" "/layers/$tag" || fail "the share $tag is not there"
    mount -t overlay -o "lowerdir=/layers/$tag,upperdir=/upper/$tag,workdir=/upper/$tag.aside" overlay \
        "/root${layer#*:}" || fail "no overlay of $tag"
done
for folder in $keep; do
    mkdir -p "/root$folder"
    mount --move "/kept$folder" "/root$folder"
done
mkdir -p "/root/lib/modules/$release"
mount --bind /root/run/leaktrace/modules "/root/lib/modules/$release"

mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
hostname "$hostname"
ifconfig lo up
for place in proc sys dev; do
    mount --move "/$place" "/root/$place"
done
# Not chroot: a process in a changed root may make no user namespace, and its mounts are not what /proc says.
exec switch_root /root /bin/sh /run/leaktrace/exchange/session

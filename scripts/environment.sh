# Sourced by the scripts next to it, which set $root to the checkout: makes and renews the environment $root/.venv.
# One stamp a set of packages lies in it. Line 1 is the checkout's path, line 2 pyproject.toml's hash, and its time is
# pyproject.toml's, so that whether it is current can be told without starting a program.
# shellcheck shell=sh

venv=$root/.venv
python=$venv/bin/python
project=$root/pyproject.toml
# The one that the distribution's bcc belongs to, whatever `python3` is on the user's PATH.
system_python=/usr/bin/python3

say() {
    printf 'leaktrace: %s\n' "$1" >&2
}

# stop SENTENCE REMEDY: as the Python side does it, with its exit code for "cannot trace".
stop() {
    printf 'leaktrace: %s\n%s\n' "$1" "$2" >&2
    exit 3
}

is_root() {
    [ "$(id -u)" = 0 ]
}

project_hash() {
    sha256sum <"$project" | cut -c 1-64
}

# is_current STAMP: whether STAMP was made in this place from this pyproject.toml. Starts no program.
is_current() {
    [ -x "$python" ] && [ -e "$1" ] && ! [ "$1" -nt "$project" ] && ! [ "$project" -nt "$1" ] && is_ours "$1"
}

# is_ours STAMP: a checkout that was copied or moved has an environment that leads to the old place.
is_ours() {
    [ -x "$python" ] && read -r made_in 2>/dev/null <"$1" && [ "$made_in" = "$root" ]
}

# same_project STAMP: whether only the time of pyproject.toml is another (a checkout of another branch and back).
same_project() {
    is_ours "$1" && [ "$(sed -n 2p "$1")" = "$(project_hash)" ] && { touch -c -r "$project" "$1" 2>/dev/null || :; }
}

# environment [EXTRA]: has the environment current, with the dependencies that pyproject.toml names EXTRA.
environment() {
    stamp=$venv/leaktrace${1:+-$1}.stamp
    is_current "$stamp" || same_project "$stamp" && return
    is_root || stop "The environment in $venv is not made yet, or is out of date, and making it needs root." \
        "Start it once as root: sudo $root/scripts/leaktrace --version"
    # The lock is on the folder, so it needs no file. pip inherits it: should only this shell be killed, the next start
    # waits for that pip before it clears its half-made work away.
    (
        flock -n 9 || { say "waiting for another leaktrace that makes the environment" && flock 9; }
        is_current "$stamp" || make_environment "${1-}"
    ) 9<"$root" || exit
}

# make_environment [EXTRA]: in a subshell, under the lock.
make_environment() {
    umask 022
    unset PYTHONPATH PYTHONHOME
    log=$(mktemp) || stop "No temporary file can be made." "Make room in ${TMPDIR:-/tmp}."
    trap 'rm -f "$log"' EXIT
    # dash leaves by a signal without that trap.
    trap 'exit 130' INT TERM HUP
    require_system_python
    made=$(project_hash)
    if ! is_ours "$venv/leaktrace.stamp"; then
        say "making the environment in $venv (once; up to a minute)"
        run rm -rf "$venv" || stop "$venv is not complete, and cannot be removed." "Remove it."
        # By its full name, python3.11: when the distribution replaces that, the environment must be seen to be broken.
        run "$(readlink -f "$system_python")" -I -m venv --system-site-packages "$venv" ||
            stop "No environment can be made in $venv." "Put the checkout where root can write, with 200 MB of room."
    fi
    rm -f "$venv"/leaktrace*.stamp
    touch -r "$project" "$venv/leaktrace.new"
    say "installing the Python packages${1:+ and those for $1}"
    # pip takes the folder from where it is started: a path may hold what pip reads as something else.
    cd "$root" || exit
    run "$python" -I -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore \
        --config-settings editable_mode=compat --editable ".${1:+[$1]}" ||
        stop "pip cannot install the Python packages that leaktrace needs." \
            "See that this machine reaches a package index (pip's own settings and proxies count), and start again."
    run "$python" -I -m compileall -q bpf symbolizer tracer || :
    printf '%s\n%s\n' "$root" "$made" >"$venv/leaktrace.new"
    touch -r "$project" "$venv/leaktrace.new"
    [ -z "${1-}" ] || cp -p "$venv/leaktrace.new" "$venv/leaktrace-$1.stamp"
    mv "$venv/leaktrace.new" "$venv/leaktrace.stamp"
}

# run COMMAND...: quiet where it succeeds; where it fails, its last lines that tell of errors, else its last ones.
run() {
    "$@" >"$log" 2>&1 </dev/null && return
    { grep -E '(ERROR|WARNING|Error|^E): ' "$log" || cat "$log"; } | tail -n 5 >&2
    return 1
}

# require_system_python: a Python that can make environments and has bcc.
require_system_python() {
    "$system_python" -I -c 'import ensurepip, venv; from bcc import BPF' 2>/dev/null ||
        install_packages python3-bpfcc python3-venv
    "$system_python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        stop "$system_python is older than Python 3.11." "Use a newer distribution: Debian 12, Ubuntu 24.04 or later."
}

# install_packages NAME...: the Debian packages among these that are missing.
install_packages() {
    missing=
    for package; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null ||
        stop "There is no apt-get here to install what is missing:$missing (the names on Debian)." \
            "Install your distribution's packages of these (BCC's Python bindings, venv) and start again."
    say "installing$missing"
    # Lists are fetched only where they are missing or out of date, which the first try tells.
    # shellcheck disable=SC2086
    apt_get install $missing >/dev/null 2>&1 || { apt_get update >/dev/null 2>&1; run apt_get install $missing; } ||
        stop "apt-get cannot install$missing." "Install them yourself (see the lines above for the cause), and start again."
}

apt_get() {
    # RUNLEVEL: outside systemd, keeps services that come along from being started. 9: if one is started after all,
    # it must not hold the environment's lock.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" \
        </dev/null 9<&-
}

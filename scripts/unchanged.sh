# Read by debian-packages.sh and toolchains.sh, which try many programs: what all of them said once is believed until
# PATH, a package of Debian's or one of the files changes that the answer depends on.
# shellcheck shell=sh
here=$(cd "$(dirname "$0")" && pwd)
notes=$here/../.cache/unchanged

state() { # FILE …: what an answer depends on
  printf '%s\n' "$PATH" "${PYTHON:-}" "${RUSTC:-}"
  stat -Lc '%n %Y %s %i' /var/lib/dpkg/status "$here/$(basename "$0")" "$@" 2>/dev/null || true
}

unchanged() { # NAME FILE …: whether nothing changed since it was noted
  name=$1; shift
  [ -f "$notes/$name" ] && [ -e /var/lib/dpkg/status ] && [ "$(state "$@")" = "$(cat "$notes/$name")" ]
}

note() { # NAME FILE …
  name=$1; shift
  mkdir -p "$notes"
  state "$@" >"$notes/$name.$$"
  mv "$notes/$name.$$" "$notes/$name" # two at once leave a whole one
}

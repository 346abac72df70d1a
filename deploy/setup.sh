#!/bin/sh
# Makes .env of .env.example, with secrets of its own. Runs as often as one likes: what is set already stays as it is.
#
#   sh deploy/setup.sh [domain]
set -eu

cd "$(dirname "$0")/.."
domain=${1:-}

case $domain in
  *[!A-Za-z0-9.-]* | .* | -*)
    echo "setup.sh: '$domain' is not a host name; give it like this: chat.example.com" >&2
    exit 2
    ;;
esac

# Nobody else on the box reads a secret, not even while it is being written. The new file takes the old one's place in one
# step, so that an interruption leaves either of them whole.
umask 077
new=.env.new.$$
trap 'rm -f "$new" "$new.step"' EXIT
trap 'exit 130' HUP INT TERM

if [ -f .env ]; then
  cat .env >"$new"
  # A last line without its end would swallow what is appended.
  [ -z "$(tail -c 1 "$new")" ] || echo >>"$new"
else
  cat .env.example >"$new"
fi

# 32 bytes as hexadecimal digits, which need escaping neither in a URL nor in a shell.
secret() {
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

is_set() {
  grep -q "^$1=." "$new"
}

# set_once NAME VALUE: in place of its empty or commented line, else at the end.
set_once() {
  if is_set "$1"; then return; fi
  NAME=$1 VALUE=$2 awk '
    BEGIN { name = ENVIRON["NAME"]; line = name "=" ENVIRON["VALUE"] }
    !done && ($0 == name "=" || index($0, "# " name "=") == 1) { print line; done = 1; next }
    { print }
    END { if (!done) print line }
  ' "$new" >"$new.step"
  mv "$new.step" "$new"
  echo "setup.sh: $1 is set"
}

for name in POSTGRES_PASSWORD JWT_SECRET TURN_SECRET METRICS_TOKEN; do
  set_once "$name" "$(secret)"
done
if [ -n "$domain" ]; then
  set_once DOMAIN "$domain"
  if ! grep -qx "DOMAIN=$domain" "$new"; then
    echo "setup.sh: DOMAIN in .env is another one already; change it there to make it $domain" >&2
  fi
fi

chmod 600 "$new"
mv "$new" .env
echo "setup.sh: .env is ready; go on with: docker compose up -d --build"

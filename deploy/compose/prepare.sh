#!/bin/sh
# Makes what deploy/compose.yaml needs and no repository may hold: superfan.toml, an API key, secrets and passwords.
# What is there already stays as it is. Usage: sh deploy/compose/prepare.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
state=${1:-"$here/state"}

# The folder keeps other users out. What lies in it is readable, as the containers' users read it through mounts.
mkdir -p "$state"
chmod 700 "$state"
umask 022
mkdir -p "$state/config/secrets" "$state/passwords"

random() { head -c "$1" /dev/urandom | base64 | tr -d '\n'; }
urlsafe() { random "$1" | tr '+/' '-_' | tr -d '='; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c 1-64; }
keep() { [ -s "$1" ] || printf '%s\n' "$2" > "$1"; }

keep "$state/api-key" "sf_dev_$(urlsafe 24)"
keep "$state/config/secrets/douyin-demo" "$(urlsafe 24)"
keep "$state/config/secrets/standard-demo" "whsec_$(random 32)"
for user in postgres profile segmentation engagement rewards; do
    keep "$state/passwords/$user" "$(urlsafe 24)"
done

if [ ! -s "$state/config/superfan.toml" ]; then
    hash=$(tr -d '\n' < "$state/api-key" | sha256)
    sed -e "s/@sha256 of keys\/dev@/$hash/" -e 's/keys\/dev/api-key, outside of the containers/' \
        "$here/../local/superfan.toml" > "$state/config/superfan.toml"
fi
echo "made: $state"
echo "API key: $(cat "$state/api-key")"

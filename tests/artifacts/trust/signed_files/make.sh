#!/bin/sh
# Signs packed.tar.gz, and the plugin.wasm in it, with throw-away keys, as `cosign sign-blob --bundle` does (cosign v3.1, openssl 3):
#   COSIGN=cosign sh make.sh FOLDER
# FOLDER holds packed.tar.gz. Beside it this writes KEY.pub, and KEY-FILE.sigstore.json for each key and file.
set -eu
cd "$1"
export COSIGN_PASSWORD=throw-away
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT
tar -xzf packed.tar.gz -C "$keys" plugin.wasm
for curve in prime256v1 secp384r1 secp521r1; do
    openssl ecparam -name $curve -genkey -noout -out "$keys/$curve.pem"
done
openssl genrsa -out "$keys/rsa.pem" 2048
openssl genpkey -algorithm ed25519 -out "$keys/ed25519.pem"
for pem in "$keys"/*.pem; do
    name=$(basename "$pem" .pem)
    "$COSIGN" import-key-pair --key "$pem" --output-key-prefix "$keys/$name" --yes
    cp "$keys/$name.pub" .
    for file in "$keys/plugin.wasm" packed.tar.gz; do
        "$COSIGN" sign-blob --key "$keys/$name.key" --tlog-upload=false --use-signing-config=false --yes \
            --bundle "$name-$(basename "$file").sigstore.json" "$file"
    done
done
chmod 644 ./*

#!/bin/sh
# What an image of smgeo is made of: run as root in a Debian 12, with the checkout in /src. Dockerfile and smgeo.def both run it.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends ca-certificates python3 python3-venv
python3 -m venv /opt/smgeo
/opt/smgeo/bin/python -m pip install --quiet --no-cache-dir --constraint /src/constraints.txt '/src[all]'
rm -rf /var/lib/apt/lists/*

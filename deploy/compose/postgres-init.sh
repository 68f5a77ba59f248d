#!/bin/sh
# Run once by the image of PostgreSQL, when its volume is empty: for each service a user and a database of its own.
set -e
for service in profile segmentation engagement rewards; do
    export service
    psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres --no-psqlrc --quiet <<'SQL'
\set name `printf %s "$service"`
\set password `cat "/run/secrets/$service-db"`
create role :"name" login password :'password';
create database :"name" owner :"name";
revoke all on database :"name" from public;
SQL
done

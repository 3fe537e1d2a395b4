# SPDX-License-Identifier: MIT
"""Runs the migrations against the database that DATABASE_URL names.

The URL comes from the environment or, where that has none, from `.env` in the working directory, as for the programs.
libpq reads it as it is (psycopg2 hands it on), so whatever the processor can reach, alembic can reach too: Unix
sockets, several hosts, `sslmode` and the like. Everything runs in one transaction under an advisory lock, so that
two containers that migrate at the same time wait for each other.
"""

import logging.config
import os
import re
import sys

import psycopg2
import sqlalchemy
from alembic import context

LOCK_NUMBER = 0x506F737465726E  # "Postern"


def stop(line):
    print(f"alembic: {line}", file=sys.stderr)
    sys.exit(1)


def unquoted(value):
    """A value of .env in docker-compose's syntax: 'as is', "with escapes" or bare up to a comment."""
    if value[:1] == "'":
        return value[1:].partition("'")[0]
    if value[:1] == '"':
        inner = re.match(r'"((?:[^"\\]|\\.)*)', value, re.DOTALL).group(1)
        return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[1], m[1]), inner)
    return re.split(r"\s#", value, maxsplit=1)[0].strip()


def database_url():
    if os.environ.get("DATABASE_URL"):
        return os.environ["DATABASE_URL"]
    found = None
    try:
        with open(".env", encoding="utf-8") as lines:
            for line in lines:
                match = re.match(r"\s*(?:export\s+)?DATABASE_URL\s*=\s*(.*)", line)
                if match:
                    found = unquoted(match[1])
    except FileNotFoundError:
        pass
    if not found:
        stop("DATABASE_URL is set neither in the environment nor in .env; for example "
             "DATABASE_URL=postgresql://postern:secret@127.0.0.1:5432/postern")
    return found


def connect():
    try:
        return psycopg2.connect(database_url())
    except psycopg2.ProgrammingError as error:
        stop(f"DATABASE_URL is not a URL that libpq understands: {str(error).strip()}")
    except psycopg2.OperationalError as error:
        stop(f"the database of DATABASE_URL cannot be reached: {' '.join(str(error).split())}")


def migrate():
    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=connect, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, transactional_ddl=True)
        with context.begin_transaction():
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(LOCK_NUMBER)))
            context.run_migrations()


def print_sql():
    """`alembic upgrade head --sql`: the statements alone, for those who apply them by hand."""
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    print_sql()
else:
    migrate()

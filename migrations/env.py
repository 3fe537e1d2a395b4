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
import psycopg2.errors
import sqlalchemy
from alembic import context

LOCK_NUMBER = 0x506F737465726E  # "Postern"


def stop(line):
    print(f"alembic: {line}", file=sys.stderr)
    sys.exit(1)


VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?-)([^}$]*))?\})", re.ASCII)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


class EnvFile:
    """A .env file as the programs read it (src/shared/settings_env.c): docker-compose's syntax with 'as is',
    "with escapes" or bare values up to a comment, and outside single quotes $NAME, ${NAME}, ${NAME-default},
    ${NAME:-default} and $$. A variable is the environment's or, where that has none, that of an earlier line."""

    def __init__(self, path):
        self.values = {}
        self.place = path
        try:
            with open(path, encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, 1):
                    self.place = f"{path}:{number}"
                    if line.strip() and not line.lstrip().startswith("#"):
                        self.take(line.rstrip("\r\n"))
        except FileNotFoundError:
            pass

    def take(self, line):
        match = re.fullmatch(r"[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=(.*)", line, re.ASCII)
        if not match:
            stop(f"{self.place}: not of the form NAME=value")
        name, text = match[1], match[2].lstrip(" \t")
        if text[:1] == "'":
            value, end, rest = text[1:].partition("'")
        elif text[:1] == '"':
            quoted = re.match(r'"((?:[^"\\]|\\.)*)("?)(.*)', text)
            inner, end, rest = quoted.groups()
            value = "".join(self.unescaped(piece) if piece[0] == "\\" else self.expanded(piece)
                            for piece in re.findall(r"\\.|[^\\]+", inner))
        else:
            value, end, rest = self.expanded(re.split(r"[ \t]#", match[2], maxsplit=1)[0].strip(" \t")), "'", ""
        if not end:
            stop(f"{self.place}: a quote without a second one")
        if not re.fullmatch(r"[ \t]*(?:[ \t]#.*)?", rest):
            stop(f"{self.place}: something behind the closing quote")
        self.values[name] = value

    def unescaped(self, escape):
        if escape[1] not in ESCAPES:
            stop(f'{self.place}: an escape other than \\\\ \\" \\$ \\n \\r \\t')
        return ESCAPES[escape[1]]

    def expanded(self, text):
        done, at = "", 0
        while (dollar := text.find("$", at)) >= 0:
            match = VARIABLE.match(text, dollar)
            if not match:
                stop(f"{self.place}: a $ that names no variable, or a form of ${{...}} other than ${{NAME}}, "
                     "${NAME-default} and ${NAME:-default}; write $$ for a dollar sign")
            done += text[at:dollar] + ("$" if match[1] else self.variable(match[2] or match[3], match[4], match[5]))
            at = match.end()
        return done + text[at:]

    def variable(self, name, form, default):
        value = os.environ.get(name, self.values.get(name))
        if form and (value is None or (form == ":-" and not value)):
            return default
        if value is None:
            stop(f"{self.place}: ${{{name}}} is not set")
        return value


def database_url():
    url = os.environ.get("DATABASE_URL") or EnvFile(".env").values.get("DATABASE_URL")
    if not url:
        stop("DATABASE_URL is set neither in the environment nor in .env; for example "
             "DATABASE_URL=postgresql://postern:secret@127.0.0.1:5432/postern")
    return url


def masked(said):
    """Without what libpq quotes of the URL, up to the last quote, for a password may hold some: from the first quote
    behind a colon (those before it hold what libpq expected), or from the first one where none is."""
    return re.sub(r'^(.*?: (?=")|[^"]*)".*"', r'\1"***"', said)


# A password with an @ or a slash in it ends as a host's name or a port.
MISREAD = re.compile(r'host name "[^"]*@|invalid (?:integer value|port number)')


def connect():
    try:
        return psycopg2.connect(database_url())
    except psycopg2.ProgrammingError as error:
        stop(f"DATABASE_URL is not a URL that libpq understands: {masked(' '.join(str(error).split()))}")
    except psycopg2.OperationalError as error:
        said = " ".join(str(error).split())
        if MISREAD.search(said):
            said = masked(said) + "; in a password, @ is written %40 and / %2F"
        if "password authentication failed" in said:
            said += ("; the password is the one the database was made with (in docker-compose: POSTGRES_PASSWORD in .env, "
                     "when the volume was made) until ALTER ROLE changes it")
        stop(f"the database of DATABASE_URL cannot be reached: {said}")


def migrate():
    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=connect, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, transactional_ddl=True)
        with context.begin_transaction():
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(LOCK_NUMBER)))
            run_migrations()


def run_migrations():
    """Whatever goes wrong, nothing was changed: all of it is one transaction."""
    known = {script.revision for script in context.script.walk_revisions()}
    for revision in context.get_context().get_current_heads():
        if revision not in known:
            stop(f"the database is at revision {revision}, which is not among these migrations: a newer release has "
                 "migrated it, so that or a newer one must be run")
    try:
        context.run_migrations()
    except sqlalchemy.exc.DBAPIError as error:
        said = " ".join(str(error.orig).split())
        if isinstance(error.orig, psycopg2.errors.DuplicateTable):
            stop(f"{said}, and these migrations have not made it: rename it, or give DATABASE_URL an empty database")
        stop(f"the database refuses the migration: {said}")


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

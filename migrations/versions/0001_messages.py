# SPDX-License-Identifier: MIT
"""messages and message_types

The two tables the processor works with. It prepares its statements against them at each connect and says
`alembic upgrade head` when they are missing.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE message_types (
    type          text PRIMARY KEY CHECK (length(type) BETWEEN 1 AND 32),
    accepts_from  time NOT NULL DEFAULT '00:00',
    accepts_until time NOT NULL DEFAULT '24:00'
);

COMMENT ON TABLE message_types IS
    'When the processor accepts messages of a type. Outside its window a message is stored as rejected. A type '
    'that is not listed is accepted at any time. A change counts from the next batch on.';
COMMENT ON COLUMN message_types.accepts_from IS
    'Start of the daily window, itself inside. What counts is when the gateway took the message (received_at) or, where '
    'the message does not say, when it is stored; in the time zone of the database''s TimeZone setting (ALTER DATABASE '
    '... SET TimeZone; the processor takes a change with its next connection).';
COMMENT ON COLUMN message_types.accepts_until IS
    'End of the daily window, itself outside; 24:00 is the end of the day. Earlier than accepts_from, the window '
    'passes midnight (22:00 to 06:00). Equal to accepts_from, the window is empty and nothing is accepted.';

INSERT INTO message_types (type) VALUES ('text'), ('voice'), ('video');

CREATE TABLE messages (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id   text        NOT NULL CHECK (length(client_id) BETWEEN 1 AND 64),
    message_id  text        NOT NULL CHECK (length(message_id) BETWEEN 1 AND 255),
    type        text        NOT NULL CHECK (length(type) BETWEEN 1 AND 32),
    content     jsonb       NOT NULL,
    status      text        NOT NULL CHECK (status IN ('stored', 'rejected')),
    gateway     text,
    received_at timestamptz,
    stored_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT messages_client_id_message_id_key UNIQUE (client_id, message_id)
);

COMMENT ON TABLE messages IS
    'Every message that was taken in charge, once, however often it arrived.';
COMMENT ON COLUMN messages.message_id IS
    'The client''s own id or, where it gave none, one the gateway made; unique within the client.';
COMMENT ON COLUMN messages.status IS
    'stored, or rejected: it was received outside the window of its type in message_types.';
COMMENT ON COLUMN messages.gateway IS
    'The GATEWAY_ID it came through; null when another publisher put it into the queue.';
COMMENT ON COLUMN messages.received_at IS
    'When the gateway took it, by the gateway''s clock, which the window of its type is held against; null when the '
    'publisher did not say.';
COMMENT ON COLUMN messages.stored_at IS
    'Start of the transaction that stored it, by the database''s clock.'
"""

DOWNGRADE = """
DROP TABLE messages;
DROP TABLE message_types
"""


def upgrade():
    op.execute(UPGRADE)


def downgrade():
    op.execute(DOWNGRADE)

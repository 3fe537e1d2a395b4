/* SPDX-License-Identifier: MIT */
/* Links between the program (the near end) and the owner (the far end). Each direction is a ring of bytes, with a queue
 * of pieces that say when bytes arrive; the order of bytes is never changed, as TCP promises. The far end lives in the
 * owner's code, which runs from events alone and never inside a call of the program. */
#include <string.h>

#include "sim_inside.h"

/* ---- links ---- */

static uint64_t name_of(const struct sim *sim, uint32_t index)
{
    return (uint64_t)sim->links[index].generation << 32 | index;
}

/* NULL: that link is gone. */
static struct sim_link *named(struct sim *sim, uint64_t name)
{
    struct sim_link *link = &sim->links[(uint32_t)name];
    return link->generation == (uint32_t)(name >> 32) && link->state != SIM_LINK_FREE ? link : NULL;
}

static uint32_t index_of(const struct sim *sim, const struct sim_link *link)
{
    return (uint32_t)(link - sim->links);
}

static void begin_stream(struct sim_stream *stream)
{
    memset(stream, 0, offsetof(struct sim_stream, bytes));
}

static struct sim_link *take_link(struct sim *sim)
{
    for (size_t i = 0; i < SIM_LINKS_MAX; i++) {
        struct sim_link *link = &sim->links[i];
        if (link->state == SIM_LINK_FREE) {
            uint32_t generation = link->generation + 1;
            memset(link, 0, offsetof(struct sim_link, up));
            link->generation = generation;
            link->state = SIM_LINK_CONNECTING;
            link->peer_port = (uint16_t)sim_between(sim, 20000, 60000);
            begin_stream(&link->up);
            begin_stream(&link->down);
            sim->link_end = i >= sim->link_end ? (uint32_t)i + 1 : sim->link_end;
            return link;
        }
    }
    return NULL;
}

static void free_if_dead(struct sim_link *link)
{
    if (!link->is_near_alive && !link->is_far_alive) {
        link->state = SIM_LINK_FREE;
    }
}

static uint64_t delayed(struct sim *sim)
{
    return sim->now_ns + sim_magnitude(sim, sim->weather.delay_ns_min, sim->weather.delay_ns_max);
}

static void tell(struct sim *sim, const struct sim_link *link, enum sim_news news)
{
    if (link->is_far_alive && !link->is_cut) {
        sim->handler->on_news(sim->context, index_of(sim, link), news);
    }
}

/* ---- bytes on their way ---- */

static size_t stream_room(const struct sim_stream *stream)
{
    return SIM_STREAM_BYTES - (size_t)(stream->written - stream->taken);
}

static void put(struct sim_stream *stream, const uint8_t *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t at = (size_t)(stream->written % SIM_STREAM_BYTES);
        size_t piece = bytes - done < SIM_STREAM_BYTES - at ? bytes - done : SIM_STREAM_BYTES - at;
        memcpy(stream->bytes + at, data + done, piece);
        stream->written += piece;
        done += piece;
    }
}

static void get(struct sim_stream *stream, uint8_t *buffer, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t at = (size_t)(stream->taken % SIM_STREAM_BYTES);
        size_t piece = bytes - done < SIM_STREAM_BYTES - at ? bytes - done : SIM_STREAM_BYTES - at;
        memcpy(buffer + done, stream->bytes + at, piece);
        stream->taken += piece;
        done += piece;
    }
    while (stream->piece_count > 0 && stream->pieces[stream->piece_first].end <= stream->taken) {
        stream->piece_first = (stream->piece_first + 1) % SIM_PIECES_MAX;
        stream->piece_count--;
    }
}

static struct sim_piece *piece_at(struct sim_stream *stream, uint32_t number)
{
    return &stream->pieces[(stream->piece_first + number) % SIM_PIECES_MAX];
}

/* When something arrives next; UINT64_MAX: nothing is on its way. */
static uint64_t next_arrival_ns(struct sim_stream *stream)
{
    for (uint32_t i = 0; i < stream->piece_count; i++) {
        if (piece_at(stream, i)->end > stream->arrived) {
            return piece_at(stream, i)->due_ns;
        }
    }
    return stream->is_end_written && !stream->has_end_arrived ? stream->end_due_ns : UINT64_MAX;
}

static void arrive(struct sim *sim, struct sim_link *link, struct sim_stream *stream);
static void wait_for_peer(struct sim *sim, struct sim_link *link);

static void arrive_up(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_link *link = named(sim, name);
    if (link != NULL) {
        arrive(sim, link, &link->up);
    }
}

static void arrive_down(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_link *link = named(sim, name);
    if (link != NULL) {
        arrive(sim, link, &link->down);
    }
}

static void schedule(struct sim *sim, struct sim_link *link, struct sim_stream *stream)
{
    uint64_t due_ns = next_arrival_ns(stream);
    if (!stream->is_scheduled && due_ns != UINT64_MAX) {
        stream->is_scheduled = true;
        sim_at(sim, due_ns, stream == &link->up ? arrive_up : arrive_down, sim, name_of(sim, index_of(sim, link)));
    }
}

static void arrive(struct sim *sim, struct sim_link *link, struct sim_stream *stream)
{
    uint64_t arrived = stream->arrived;
    bool had_end = stream->has_end_arrived;
    stream->is_scheduled = false;
    if (link->is_cut || link->state != SIM_LINK_OPEN) {
        return;
    }
    for (uint32_t i = 0; i < stream->piece_count && piece_at(stream, i)->due_ns <= sim->now_ns; i++) {
        stream->arrived = piece_at(stream, i)->end;
    }
    stream->has_end_arrived =
        stream->is_end_written && stream->arrived == stream->written && stream->end_due_ns <= sim->now_ns;
    schedule(sim, link, stream);
    if (stream == &link->down && !link->is_near_alive && stream->arrived > arrived) {
        link->state = SIM_LINK_RESET; /* bytes for a socket that is closed */
        tell(sim, link, SIM_RESET);
        return;
    }
    if (stream == &link->up && stream->arrived > arrived) {
        if (!link->is_far_alive) {
            link->state = SIM_LINK_RESET;
            return;
        }
        uint64_t name = name_of(sim, index_of(sim, link));
        tell(sim, link, SIM_READABLE);
        link = named(sim, name); /* the owner may have closed it */
    }
    if (link != NULL && stream == &link->up && stream->has_end_arrived && !had_end) {
        tell(sim, link, SIM_ENDED);
    }
}

static void send_piece(struct sim *sim, struct sim_link *link, struct sim_stream *stream, const uint8_t *data,
                       size_t bytes, uint64_t known_bytes)
{
    uint64_t due_ns = delayed(sim);
    put(stream, data, bytes);
    stream->last_due_ns = due_ns > stream->last_due_ns ? due_ns : stream->last_due_ns;
    if (stream->piece_count == SIM_PIECES_MAX) {
        struct sim_piece *last = piece_at(stream, SIM_PIECES_MAX - 1);
        last->end = stream->written;
        last->due_ns = stream->last_due_ns;
        last->read_bytes = link->down.taken;
    } else {
        *piece_at(stream, stream->piece_count++) =
            (struct sim_piece){stream->written, stream->last_due_ns, sim->now_ns, known_bytes, link->down.taken};
    }
    schedule(sim, link, stream);
}

static void finish(struct sim *sim, struct sim_link *link, struct sim_stream *stream)
{
    if (!stream->is_end_written) {
        stream->is_end_written = true;
        uint64_t due_ns = delayed(sim);
        stream->end_due_ns = due_ns > stream->last_due_ns ? due_ns : stream->last_due_ns;
        schedule(sim, link, stream);
    }
}

static void reset_later(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_link *link = named(sim, name);
    if (link != NULL && link->state != SIM_LINK_RESET && !link->is_cut) {
        link->state = SIM_LINK_RESET;
        tell(sim, link, SIM_RESET);
    }
}

/* ---- connecting ---- */

static void meet_connect(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_link *link = named(sim, name);
    if (link == NULL || !link->is_near_alive) {
        return;
    }
    struct port_address address = {.bytes = {10, 0, 0, 1}, .port = link->peer_port};
    enum sim_welcome welcome = SIM_REFUSE;
    if (!sim_chance(sim, sim->weather.connect_fails_ppm)) {
        link->is_far_alive = true;
        link->state = SIM_LINK_OPEN;
        welcome = sim->handler->on_connect(sim->context, index_of(sim, link), &address);
    }
    if (welcome != SIM_TAKE) {
        link->is_far_alive = false;
        link->state = welcome == SIM_REFUSE ? SIM_LINK_RESET : SIM_LINK_CONNECTING;
    }
}

static void meet_listener(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_link *link = named(sim, name);
    if (link == NULL || !link->is_far_alive) {
        return;
    }
    if (!sim->is_listening) {
        link->is_far_alive = false;
        link->state = SIM_LINK_FREE;
        sim->handler->on_news(sim->context, index_of(sim, link), SIM_REFUSED);
        return;
    }
    link->state = SIM_LINK_OPEN;
    link->is_near_alive = true;
    link->is_waiting_accept = true;
    link->accept_order = sim->next_order++;
    tell(sim, link, SIM_OPENED);
}

uint32_t sim_connect(struct sim *sim)
{
    struct sim_link *link = take_link(sim);
    if (link == NULL) {
        return UINT32_MAX;
    }
    link->is_far_alive = true;
    sim_at(sim, delayed(sim), meet_listener, sim, name_of(sim, index_of(sim, link)));
    return index_of(sim, link);
}

/* ---- the far end ---- */

static struct sim_link *far_link(struct sim *sim, uint32_t index)
{
    CHECK(index < SIM_LINKS_MAX && sim->links[index].state != SIM_LINK_FREE && sim->links[index].is_far_alive);
    return &sim->links[index];
}

size_t sim_send(struct sim *sim, uint32_t index, const void *data, size_t bytes)
{
    struct sim_link *link = far_link(sim, index);
    struct sim_stream *stream = &link->down;
    if (link->state != SIM_LINK_OPEN || stream->is_end_written) {
        return bytes; /* into the void */
    }
    size_t room = stream_room(stream);
    size_t sent = bytes < room ? bytes : room;
    if (sent > 0) {
        send_piece(sim, link, stream, data, sent, 0);
    }
    stream->was_short = sent < bytes;
    return sent;
}

size_t sim_receive(struct sim *sim, uint32_t index, void *buffer, size_t bytes)
{
    struct sim_stream *stream = &far_link(sim, index)->up;
    size_t there = (size_t)(stream->arrived - stream->taken);
    size_t taken = there < bytes ? there : bytes;
    if (stream->piece_count > 0 && stream->taken + taken > piece_at(stream, 0)->end) {
        taken = (size_t)(piece_at(stream, 0)->end - stream->taken);
    }
    get(stream, buffer, taken);
    return taken;
}

void sim_knowledge(const struct sim *sim, uint32_t index, uint64_t *at_least, uint64_t *at_most)
{
    const struct sim_stream *stream = &sim->links[index].up;
    *at_least = stream->piece_count > 0 ? stream->pieces[stream->piece_first].known_bytes : 0;
    *at_most = stream->piece_count > 0 ? stream->pieces[stream->piece_first].read_bytes : 0;
}

uint64_t sim_near_read_bytes(const struct sim *sim, uint32_t index)
{
    return sim->links[index].down.taken;
}

bool sim_near_is_stuffed(const struct sim *sim, uint32_t index)
{
    return sim->links[index].up.was_short;
}

void sim_finish(struct sim *sim, uint32_t index)
{
    struct sim_link *link = far_link(sim, index);
    if (link->state == SIM_LINK_OPEN) {
        finish(sim, link, &link->down);
    }
}

void sim_close(struct sim *sim, uint32_t index)
{
    struct sim_link *link = far_link(sim, index);
    sim_finish(sim, index);
    link->is_far_alive = false;
    if (link->state == SIM_LINK_OPEN && link->up.taken < link->up.arrived && !link->is_cut) {
        link->state = SIM_LINK_RESET; /* as a system does that throws away what came */
    }
    free_if_dead(link);
}

void sim_reset(struct sim *sim, uint32_t index)
{
    struct sim_link *link = far_link(sim, index);
    link->is_far_alive = false;
    if (!link->is_cut) {
        link->state = SIM_LINK_RESET;
    }
    free_if_dead(link);
}

void sim_cut(struct sim *sim, uint32_t index)
{
    far_link(sim, index)->is_cut = true;
    wait_for_peer(sim, &sim->links[index]);
}

/* ---- the near end: the port's functions ---- */

static struct sim_link *near_link(struct sim *sim, port_socket socket)
{
    uint32_t index = (uint32_t)socket - SIM_HANDLE_LINKS;
    if (index >= SIM_LINKS_MAX || sim->links[index].state == SIM_LINK_FREE || !sim->links[index].is_near_alive ||
        sim->links[index].is_waiting_accept) {
        sim_misuse(sim, "a socket is used that is not open");
    }
    return &sim->links[index];
}

static enum port_result listen_for(void *context, const struct port_address *address, port_socket *socket)
{
    struct sim *sim = context;
    (void)address;
    sim_enter(sim);
    CHECK(!sim->is_listening);
    sim->is_listening = true;
    *socket = SIM_HANDLE_LISTENER;
    return PORT_OK;
}

static enum port_result accept_one(void *context, port_socket listener, port_socket *socket, struct port_address *peer)
{
    struct sim *sim = context;
    struct sim_link *first = NULL;
    sim_enter(sim);
    CHECK(listener == SIM_HANDLE_LISTENER && sim->is_listening);
    for (size_t i = 0; i < sim->link_end; i++) {
        struct sim_link *link = &sim->links[i];
        if (link->state == SIM_LINK_FREE || !link->is_waiting_accept) {
            continue;
        }
        if (link->state == SIM_LINK_RESET) { /* it gave up */
            link->is_waiting_accept = false;
            link->is_near_alive = false;
            free_if_dead(link);
        } else if (first == NULL || link->accept_order < first->accept_order) {
            first = link;
        }
    }
    if (first == NULL) {
        return PORT_AGAIN;
    }
    if (sim_chance(sim, sim->weather.accept_fails_ppm)) {
        return sim_fail(sim, "Too many open files");
    }
    first->is_waiting_accept = false;
    *socket = (port_socket)(SIM_HANDLE_LINKS + index_of(sim, first));
    *peer = (struct port_address){.bytes = {10, 2, 0, 1}, .port = first->peer_port};
    return PORT_OK;
}

static enum port_result connect_to(void *context, const struct port_address *address, port_socket *socket)
{
    struct sim *sim = context;
    sim_enter(sim);
    struct sim_link *link = take_link(sim);
    if (link == NULL) {
        return sim_fail(sim, "Too many open files");
    }
    link->is_near_alive = true;
    link->is_from_near = true;
    link->peer_port = address->port;
    *socket = (port_socket)(SIM_HANDLE_LINKS + index_of(sim, link));
    sim_at(sim, delayed(sim), meet_connect, sim, name_of(sim, index_of(sim, link)));
    return PORT_OK;
}

static enum port_result connected(void *context, port_socket socket)
{
    struct sim *sim = context;
    sim_enter(sim);
    switch (near_link(sim, socket)->state) {
    case SIM_LINK_CONNECTING:
        return PORT_AGAIN;
    case SIM_LINK_OPEN:
        return PORT_OK;
    case SIM_LINK_FREE:
    case SIM_LINK_RESET:
        break;
    }
    return sim_fail(sim, "Connection refused");
}

static void tell_writable(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_link *link = named(sim, name);
    if (link != NULL && link->state == SIM_LINK_OPEN) {
        tell(sim, link, SIM_WRITABLE);
    }
}

static enum port_result receive(void *context, port_socket socket, void *buffer, size_t bytes, size_t *received_bytes)
{
    struct sim *sim = context;
    sim_enter(sim);
    struct sim_link *link = near_link(sim, socket);
    struct sim_stream *stream = &link->down;
    size_t there = (size_t)(stream->arrived - stream->taken);
    CHECK(bytes > 0);
    if (link->state != SIM_LINK_OPEN) {
        return sim_fail(sim, "Connection reset by peer");
    }
    if (there == 0) {
        return stream->has_end_arrived ? PORT_CLOSED : PORT_AGAIN;
    }
    size_t taken = there < bytes ? there : bytes;
    if (sim_chance(sim, sim->weather.partial_ppm)) {
        taken = (size_t)sim_between(sim, 1, taken);
    }
    get(stream, buffer, taken);
    *received_bytes = taken;
    if (stream->was_short) {
        stream->was_short = false;
        sim_at(sim, delayed(sim), tell_writable, sim, name_of(sim, index_of(sim, link)));
    }
    return PORT_OK;
}

static enum port_result send_bytes(void *context, port_socket socket, const void *data, size_t bytes,
                                   size_t *sent_bytes)
{
    struct sim *sim = context;
    sim_enter(sim);
    struct sim_link *link = near_link(sim, socket);
    struct sim_stream *stream = &link->up;
    *sent_bytes = 0;
    if (bytes == 0 || stream->is_end_written) {
        sim_misuse(sim, "a send of nothing, or after the end");
    }
    if (link->state != SIM_LINK_OPEN) {
        return sim_fail(sim, "Broken pipe");
    }
    size_t room = stream_room(stream);
    size_t sent = bytes < room ? bytes : room;
    if (sent > 1 && sim_chance(sim, sim->weather.partial_ppm)) {
        sent = (size_t)sim_between(sim, 1, sent);
    }
    stream->was_short = sent < bytes;
    if (sent == 0) {
        return PORT_AGAIN;
    }
    send_piece(sim, link, stream, data, sent, link->clean_known_bytes);
    if (!stream->was_short) {
        link->clean_known_bytes = link->down.taken;
    }
    *sent_bytes = sent;
    wait_for_peer(sim, link);
    sim->handler->on_near_sent(sim->context, index_of(sim, link), data, sent);
    return PORT_OK;
}

/* What was sent was not taken by the other machine in time: the stream is dead to the program, and nobody else hears of
 * it. */
static void lose_patience(void *context, uint64_t name)
{
    struct sim *sim = context;
    struct sim_link *link = named(sim, name);
    if (link == NULL || link->state != SIM_LINK_OPEN || !link->is_near_alive) {
        return;
    }
    link->is_waited_for = false;
    for (uint32_t i = 0; i < link->up.piece_count; i++) {
        const struct sim_piece *piece = piece_at(&link->up, i);
        if (piece->end > link->up.arrived && sim->now_ns - piece->sent_ns >= link->patience_ns) {
            link->state = SIM_LINK_RESET;
            return;
        }
    }
    wait_for_peer(sim, link);
}

static void wait_for_peer(struct sim *sim, struct sim_link *link)
{
    if (link->patience_ns > 0 && link->is_cut && !link->is_waited_for && link->up.written > link->up.arrived) {
        link->is_waited_for = true;
        sim_at(sim, sim->now_ns + link->patience_ns, lose_patience, sim, name_of(sim, index_of(sim, link)));
    }
}

static void set_patience(void *context, port_socket socket, uint32_t patience_ms)
{
    struct sim *sim = context;
    sim_enter(sim);
    near_link(sim, socket)->patience_ns = (uint64_t)patience_ms * SIM_MS;
}

static void shutdown_send(void *context, port_socket socket)
{
    struct sim *sim = context;
    sim_enter(sim);
    struct sim_link *link = near_link(sim, socket);
    if (link->state == SIM_LINK_OPEN) {
        finish(sim, link, &link->up);
    }
}

/* The program's end of a link is gone, by a close or with the program. */
static void end_near(struct sim *sim, struct sim_link *link)
{
    bool is_unread = link->down.taken < link->down.arrived;
    link->is_near_alive = false;
    link->is_watched = false;
    link->is_waiting_accept = false;
    if (link->state == SIM_LINK_CONNECTING) {
        link->is_far_alive = false;
    } else if (link->state == SIM_LINK_OPEN && is_unread) {
        sim_at(sim, delayed(sim), reset_later, sim, name_of(sim, index_of(sim, link)));
    } else if (link->state == SIM_LINK_OPEN) {
        finish(sim, link, &link->up);
    }
    free_if_dead(link);
}

static void close_socket(void *context, port_socket socket)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (socket == SIM_HANDLE_LISTENER) {
        CHECK(!sim->is_listener_watched);
        sim->is_listening = false;
        return;
    }
    struct sim_link *link = near_link(sim, socket);
    if (link->is_watched) {
        sim_misuse(sim, "a socket is closed that is still watched");
    }
    sim->handler->on_near_closed(sim->context, index_of(sim, link));
    end_near(sim, link);
}

static enum port_result local_address(void *context, port_socket socket, struct port_address *address)
{
    (void)context;
    (void)socket;
    *address = (struct port_address){.port = SIM_LISTENER_PORT};
    return PORT_OK;
}

/* ---- the poller ---- */

static enum port_result watch_add(void *context, port_socket socket, uint32_t interest, uint64_t token)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (socket == SIM_HANDLE_LISTENER) {
        sim->is_listener_watched = true;
        sim->listener_interest = interest;
        sim->listener_token = token;
        return PORT_OK;
    }
    struct sim_link *link = near_link(sim, socket);
    if (link->is_watched) {
        sim_misuse(sim, "a socket is watched twice");
    }
    link->is_watched = true;
    link->interest = interest;
    link->token = token;
    return PORT_OK;
}

static void watch_change(void *context, port_socket socket, uint32_t interest)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (socket == SIM_HANDLE_LISTENER) {
        sim->listener_interest = interest;
        return;
    }
    struct sim_link *link = near_link(sim, socket);
    if (!link->is_watched) {
        sim_misuse(sim, "the interest in a socket changes that is not watched");
    }
    link->interest = interest;
}

static void watch_remove(void *context, port_socket socket)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (socket == SIM_HANDLE_LISTENER) {
        sim->is_listener_watched = false;
        return;
    }
    near_link(sim, socket)->is_watched = false;
}

static uint32_t ready_of(const struct sim_link *link)
{
    if (link->state == SIM_LINK_CONNECTING) {
        return 0;
    }
    if (link->state == SIM_LINK_RESET) {
        return (link->interest & (PORT_READ | PORT_WRITE)) | PORT_HANGUP;
    }
    bool is_readable = link->down.arrived > link->down.taken || link->down.has_end_arrived;
    bool is_over = link->down.has_end_arrived && link->up.is_end_written;
    uint32_t ready = (is_readable ? (uint32_t)PORT_READ : 0) | (stream_room(&link->up) > 0 ? (uint32_t)PORT_WRITE : 0);
    return (ready & link->interest) | (is_over ? (uint32_t)PORT_HANGUP : 0);
}

static bool is_anyone_waiting(const struct sim *sim)
{
    for (size_t i = 0; i < sim->link_end; i++) {
        if (sim->links[i].state != SIM_LINK_FREE && sim->links[i].is_waiting_accept) {
            return true;
        }
    }
    return false;
}

/* What is ready, beginning anywhere, because a poller promises no order. */
size_t sim_ready(struct sim *sim, struct port_event *events, size_t event_max)
{
    size_t count = 0;
    bool is_knocked = sim->is_listener_watched && (sim->listener_interest & PORT_READ) != 0 && is_anyone_waiting(sim);
    for (size_t i = 0; i < sim->link_end; i++) {
        const struct sim_link *link = &sim->links[i];
        uint32_t ready = link->state != SIM_LINK_FREE && link->is_watched ? ready_of(link) : 0;
        if (ready != 0 && count < event_max) {
            events[count++] = (struct port_event){link->token, ready};
        }
    }
    if (is_knocked && count < event_max) {
        events[count++] = (struct port_event){sim->listener_token, PORT_READ};
    }
    for (size_t i = count; i > 1; i--) {
        size_t other = (size_t)sim_between(sim, 0, i - 1);
        struct port_event swapped = events[i - 1];
        events[i - 1] = events[other];
        events[other] = swapped;
    }
    return count;
}

/* ---- the end ---- */

/* What the program sent to others is with them at once, or never will be: no network holds bytes back until the program
 * has started again and said more. */
static void hurry(struct sim *sim, struct sim_link *link, enum sim_death death)
{
    struct sim_stream *stream = &link->up;
    uint64_t name = name_of(sim, index_of(sim, link));
    uint32_t lost = death == SIM_POWER_CUT ? (uint32_t)sim_between(sim, 0, stream->piece_count) : 0;
    while (lost > 0 && piece_at(stream, stream->piece_count - 1)->end > stream->arrived) {
        stream->piece_count--;
        stream->written = stream->piece_count > 0 ? piece_at(stream, stream->piece_count - 1)->end : stream->arrived;
        lost--;
    }
    stream->written = stream->written > stream->arrived ? stream->written : stream->arrived;
    for (uint32_t i = 0; i < stream->piece_count; i++) {
        piece_at(stream, i)->due_ns =
            sim->now_ns < piece_at(stream, i)->due_ns ? sim->now_ns : piece_at(stream, i)->due_ns;
    }
    stream->last_due_ns = sim->now_ns;
    if (stream->arrived < stream->written) {
        arrive_up(sim, name);
    }
}

static void cut_power(struct sim *sim, struct sim_link *link)
{
    link->is_near_alive = false;
    link->is_watched = false;
    link->is_waiting_accept = false;
    if (link->state == SIM_LINK_CONNECTING) {
        link->is_far_alive = false;
    } else if (link->state == SIM_LINK_OPEN && sim_chance(sim, SIM_ALWAYS / 2)) {
        /* What it sent still comes; then it is dead to the other side, until that hears otherwise. */
        sim_at(sim, sim->now_ns + sim_between(sim, SIM_S, 30 * SIM_S), reset_later, sim,
               name_of(sim, index_of(sim, link)));
    } else if (link->state == SIM_LINK_OPEN) {
        link->is_cut = true;
    }
    free_if_dead(link);
}

void sim_net_end(struct sim *sim, enum sim_death death)
{
    sim->is_listening = false;
    sim->is_listener_watched = false;
    for (size_t i = 0; i < sim->link_end; i++) {
        struct sim_link *link = &sim->links[i];
        if (link->state == SIM_LINK_FREE || !link->is_near_alive) {
            continue;
        }
        sim->handler->on_near_closed(sim->context, (uint32_t)i);
        if (link->is_from_near && link->state == SIM_LINK_OPEN) {
            hurry(sim, link, death);
        }
        switch (death) {
        case SIM_KILLED:
            end_near(sim, link);
            break;
        case SIM_POWER_CUT:
            cut_power(sim, link);
            break;
        }
    }
}

void sim_net_functions(struct port *port)
{
    port->listen = listen_for;
    port->accept = accept_one;
    port->connect = connect_to;
    port->connected = connected;
    port->receive = receive;
    port->send = send_bytes;
    port->set_patience = set_patience;
    port->shutdown_send = shutdown_send;
    port->close_socket = close_socket;
    port->local_address = local_address;
    port->watch_add = watch_add;
    port->watch_change = watch_change;
    port->watch_remove = watch_remove;
}

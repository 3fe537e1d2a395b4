# SPDX-License-Identifier: MIT
# Planted faults: each is one place of the gateway's source, changed in a copy, from which a simulator of its own is
# built. So the sources know nothing of them, and a place that is no longer as it was here ends the configuration.
#
# sim_fault(name seed room/file.c [[as it is]] [[as it is then]]): the fault must show within 6000 seeds from that one on,
# which is 1 but for those that are so rare that most of the time would go into them.
function(sim_fault name seed file good bad)
  set(original ${PROJECT_SOURCE_DIR}/src/${file})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${original})
  file(READ ${original} text)
  string(FIND "${text}" "${good}" first)
  string(FIND "${text}" "${good}" last REVERSE)
  if(first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "the planted fault ${name}: its place stands not once in src/${file}")
  endif()
  string(REPLACE "${good}" "${bad}" text "${text}")
  get_filename_component(stem ${file} NAME_WE)
  get_filename_component(room ${file} DIRECTORY)
  set(changed ${CMAKE_CURRENT_BINARY_DIR}/faults/${name}/${stem}.c)
  file(CONFIGURE OUTPUT ${changed} CONTENT "${text}" @ONLY NEWLINE_STYLE UNIX)
  # Its symbols are there before the room's library is asked for them.
  add_executable(sim_fault_${name} EXCLUDE_FROM_ALL ${changed} $<TARGET_OBJECTS:sim_objects>)
  sim_link(sim_fault_${name})
  set_source_files_properties(${changed} PROPERTIES COMPILE_OPTIONS "-w")
  add_dependencies(sim_faults sim_fault_${name})
  add_test(NAME sim_fault_${name} COMMAND sim_fault_${name} --find 6000 --from ${seed})
  set_tests_properties(sim_fault_${name} PROPERTIES LABELS sim_faults)
endfunction()

# The disk.
sim_fault(the_sync_is_forgotten 1 outbox/spool_write.c
  [[if (write->is_to_sync && port->sync_file(]] [[if (false && port->sync_file(]])
sim_fault(a_failed_write_is_taken_for_good 1 outbox/spool_write.c
  [[write->has_failed = !write_all(write);]] [[(void)write_all(write);
    write->has_failed = false;]])
sim_fault(the_header_is_forgotten 1600 outbox/spool_write.c
  [[    write->has_header = true;]] [[    write->has_header = false;]])
sim_fault(the_folder_is_not_synced 1 outbox/spool_recovery.c
  [[if (port->sync_directory(port->context, spool->options.directory) != PORT_OK]] [[if (false]])
sim_fault(a_damaged_payload_is_believed 1 outbox/spool_format.c
  [[if (crc32c(record->payload) != load_u32(head + PAYLOAD_CRC_OFFSET)) {]] [[if (false) {]])
sim_fault(writing_begins_over_what_is_there 1 outbox/spool_recovery.c
  [[    segment->end_offset = walk.scan.tail_offset;]] [[    segment->end_offset = SPOOL_SEGMENT_HEADER_BYTES;]])
sim_fault(what_cannot_be_read_counts_as_empty 3500 outbox/spool_recovery.c
  [[    return unreadable_bytes == 0 || refuse_segment(]] [[    return true || refuse_segment(]])
sim_fault(the_wrong_record_is_released 1 outbox/flow.c
  [[spool_release(flow->spool, (is_spooled ? front->spool_sequence : spool_read_sequence(flow->spool)) - 1);]]
  [[spool_release(flow->spool, is_spooled ? front->spool_sequence : spool_read_sequence(flow->spool) - 1);]])
sim_fault(a_write_takes_a_record_too_many_for_synced 1 outbox/spool_write.c
  [[    while (stage->first_sequence <= write->last_sequence) {]]
  [[    while (stage->first_sequence <= write->last_sequence + (stage->first_sequence + 1 < stage->next_sequence)) {]])

# The order, and what is sent again.
sim_fault(the_replay_is_forgotten 1 outbox/uplink.c
  [[    window_forget_tags(uplink->window);
    window_rewind(uplink->window);]] [[    window_forget_tags(uplink->window);]])
sim_fault(the_replay_begins_one_too_late 1 outbox/window.c
  [[    window->publish_sequence = window->front_sequence;
}]] [[    window->publish_sequence = window->front_sequence + (window_depth(window) > 1);
}]])
sim_fault(publishing_goes_on_behind_a_nack 1 outbox/uplink.c
  [[if (!is_open || uplink->replay_due_ms != 0 || amqp_link_blocked(uplink->link)) {]]
  [[if (!is_open || amqp_link_blocked(uplink->link)) {]])
sim_fault(what_is_new_overtakes_the_spool 1 outbox/flow.c
  [[    case SPOOL_NEXT_LATER:
        return false;]] [[    case SPOOL_NEXT_LATER:
        flow->route = FLOW_THROUGH_MEMORY;
        return false;]])
sim_fault(an_alarm_is_ignored 1 outbox/uplink.c
  [[if (!is_open || uplink->replay_due_ms != 0 || amqp_link_blocked(uplink->link)) {]]
  [[if (!is_open || uplink->replay_due_ms != 0) {]])

sim_fault(one_too_many_is_in_flight 1 outbox/uplink.c
  [[    while (window_in_flight(uplink->window) < uplink->window_count) {]]
  [[    while (window_in_flight(uplink->window) <= uplink->window_count) {]])

# Confirms and receipts.
sim_fault(a_multiple_confirm_goes_one_too_far 1 outbox/window.c
  [[            decided++;
            confirm(window, sequence, on_confirmed, context);
        }
    }]] [[            decided++;
            confirm(window, sequence, on_confirmed, context);
        }
    }
    if (multiple && tag + 1 < window->next_tag) {
        confirm(window, decide(window, tag + 1), on_confirmed, context);
    }]])
sim_fault(a_single_confirm_is_taken_for_many 1 outbox/window.c
  [[    for (uint64_t each = multiple ? window->oldest_tag : tag; each <= tag; each++) {
        uint64_t sequence = decide(window, each);]] [[    for (uint64_t each = window->oldest_tag; each <= tag; each++) {
        uint64_t sequence = decide(window, each);]])
sim_fault(a_nack_is_taken_for_an_ack 1 shared/amqp_link_life.c
  [[confirm(link, method->tag, method->multiple, false);]] [[confirm(link, method->tag, method->multiple, true);]])
sim_fault(queued_is_told_before_the_confirm 1 outbox/uplink.c
  [[    bool is_repeat = window_published(window, tag);]] [[    bool is_repeat = window_published(window, tag);
    window_settle(window, window_sequence(window, entry), uplink->on_confirmed, uplink->context);]])
sim_fault(a_receipt_goes_backwards 1 outbox/outbox.c
  [[        window_settle(&outbox->window, window_sequence(&outbox->window, entry), on_confirmed, outbox);]]
  [[        (void)on_confirmed;]])
sim_fault(an_earlier_starts_connection_is_believed 1 outbox/flow.c
  [[        parcel_forget_origin(into);]] [[        (void)into;]])

sim_fault(what_is_queued_is_told_as_dropped 1 outbox/outbox.c
  [[    tell(outbox, window_record(window, entry), RECEIPT_QUEUED, "", "");]]
  [[    tell(outbox, window_record(window, entry), RECEIPT_QUEUED, "", "");
    tell(outbox, window_record(window, entry), RECEIPT_REJECTED, "dropped", "");]])

# Limits.
sim_fault(the_oldest_is_dropped_without_need 1 outbox/flow.c
  [[    for (size_t count = 0; spool_is_filling(flow->spool); count++) {]]
  [[    for (size_t count = 0; spool_message_count(flow->spool) > 0; count++) {]])
sim_fault(one_too_many_is_in_memory 1 outbox/window.c
  [[    if (window_depth(window) == window->entry_count_max) {]]
  [[    if (window_depth(window) > window->entry_count_max) {]])
sim_fault(a_send_queue_has_no_bound 1 net/send_queue.c
  [[    return connection->send_bytes + bytes <= server->options.send_queue_bytes;]] [[    return true;]])

# Clients.
sim_fault(a_wake_up_is_lost 1 gateway/loop.c
  [[    if (gateway->room_came) {]] [[    if (false) {]])
sim_fault(a_session_is_used_anew_without_a_new_generation 1 session/session.c
  [[    uint32_t generation = session->generation + 1;]] [[    uint32_t generation = session->generation;]])
sim_fault(a_late_close_ends_the_new_session 1 gateway/clients.c
  [[    connection_set_user_index(&gateway->server, connection, (uint32_t)SERVER_USER_NONE);
    close_connection(gateway, connection, CLIENTS_CLOSE_TAKEN_OVER,]]
  [[    close_connection(gateway, connection, CLIENTS_CLOSE_TAKEN_OVER,]])
sim_fault(a_part_of_a_send_is_taken_for_all 1 net/send_queue.c
  [[            consume(server, connection, sent_bytes);]] [[            consume(server, connection, bytes.bytes);]])
sim_fault(the_pressure_is_ignored 1 gateway/clients.c
  [[    return !drain_running(&gateway->drain) &&
           outbox_has_room(]] [[    return !drain_running(&gateway->drain) ||
           outbox_has_room(]])
sim_fault(the_dead_keep_their_session 1 gateway/clients.c
  [[        close_connection(gateway, connection, FRAME_CLOSE_GOING_AWAY, "you were silent for too long");
        return;]] [[        break;]])
sim_fault(a_silent_broker_is_waited_for 1 shared/amqp_wire.c
  [[        if (wire->now_ms >= dead_ms) {]] [[        if (false) {]])
sim_fault(bindings_are_not_asked_for_again 1 gateway/downlink.c
  [[        if (session_in_use(session) && session->binding == SESSION_BINDING_SENT) {]] [[        if (false) {]])
sim_fault(who_is_taken_over_stays 1 gateway/clients.c
  [[    close_connection(gateway, connection, CLIENTS_CLOSE_TAKEN_OVER, "another connection with your client id took over");]]
  [[    (void)connection;]])
sim_fault(a_chunk_is_not_given_back 1 net/send_queue.c
  [[        pool_give(&server->chunks, first);]] [[        (void)server;]])

"""The fault table: what is injected, what the user sees, and which tests show it.

    python -m tests.faults.table            prints it as the table of README.md

`tests/faults/test_table.py` holds every row to tests that exist, and README.md to this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Name, fault, what the user sees, the tests as ``file::function`` below ``tests/``, and a note."""

    name: str
    inject: str
    seen: str
    tests: tuple[str, ...]
    note: str = ""


KILLED, ENDINGS, FILES = "faults/test_killed.py::", "faults/test_endings.py::", "faults/test_files.py::"
WORKERS, CHAOS = "faults/test_workers.py::", "faults/test_chaos.py::"

TABLE = (
    Row(
        "F1",
        "SIGKILL to the driver, then `--resume`",
        "`resumed k of N trials ...`; the same ids, each epoch once, numbers of an undisturbed run; at most "
        "`train.checkpoint_every` epochs of a running trial are trained again; no process survives "
        "(Ray's own agents look for their head for a minute), and no file that was half-written",
        (
            f"{KILLED}test_f01_a_killed_driver_goes_on_with_the_same_trials_and_says_so",
            f"{KILLED}test_f01_no_process_survives_its_driver",
            f"{FILES}test_what_a_killed_process_had_not_finished_writing_goes",
            f"{CHAOS}test_a_search_in_which_everything_goes_wrong_ends_like_one_in_which_nothing_did",
            "search/test_trial.py::test_an_interrupted_trial_ends_with_the_numbers_and_weights_of_an_undisturbed_one",
        ),
    ),
    Row(
        "F2",
        "F1 under ASHA",
        "rungs and stop decisions are those of a replay of the ledger; with one slot the whole order of epochs is that "
        "of an undisturbed run",
        (
            f"{KILLED}test_f02_epochs_and_stop_decisions_are_those_of_an_undisturbed_search",
            f"{WORKERS}test_f02_the_model_of_an_undisturbed_search_is_what_an_undisturbed_search_does",
            "search/test_scheduler.py::test_the_rungs_rebuilt_from_the_ledger_are_those_that_decided",
        ),
    ),
    Row(
        "F3",
        "state of the experiment cut, empty, flipped, absent",
        "the state is `ledger.jsonl`: empty, absent or changed anywhere (a checksum in every line covers all lines "
        "before it): exit 2 with the line and the newest good copy; lines lost at its end come back from the copy, "
        "those that it lacks too from the trials, each with a note; `config.yaml` and `run.json`: see the list below",
        (
            f"{FILES}test_f03_a_damaged_ledger_is_refused_and_its_newest_good_copy_is_named_and_serves",
            f"{FILES}test_f03_every_changed_byte_of_a_ledger_is_noticed",
            f"{FILES}test_f03_lines_that_are_missing_or_in_another_order_are_noticed",
            f"{FILES}test_f03_a_ledger_that_is_cut_gets_its_epochs_back_from_the_trials",
            f"{FILES}test_f03_lines_that_a_ledger_lost_are_put_back_from_its_copy",
            f"{FILES}test_f03_a_copy_that_is_damaged_or_of_another_run_puts_nothing_back",
            f"{FILES}test_f03_what_is_no_ledger_is_refused",
            f"{FILES}test_f03_a_damaged_copy_is_not_named",
            f"{FILES}test_f03_a_configuration_that_is_gone_is_known_to_the_ledger",
            f"{FILES}test_f03_a_configuration_that_is_cut_is_refused",
            f"{WORKERS}test_f03_a_search_goes_on_from_a_ledger_that_lost_its_end",
        ),
        "Ray's own state is never restored, so that it cannot be wrong.",
    ),
    Row(
        "F4",
        "`tuner.pkl` cut",
        "there is none: nothing of Ray's state is kept; files that follow from the ledger are made anew",
        (
            f"{FILES}test_f04_no_state_of_ray_is_kept_to_go_on_from",
            f"{FILES}test_f04_f37_files_that_follow_from_the_ledger_are_made_anew",
        ),
    ),
    Row(
        "F5",
        "disk full, in a trial or in the driver, at any stage; read-only of a sudden, or failing",
        "exit 75 and one line: path, free and needed bytes, how to go on; no trial and no frame counts as failed",
        (
            f"{KILLED}test_f05_a_full_disk_is_told_with_its_bytes_and_the_search_goes_on_afterwards",
            "search/test_scheduler.py::test_a_full_disk_ends_the_search_and_no_trial",
            f"{FILES}test_f05_a_full_disk_in_the_conversion_is_told_as_such_and_leaves_nothing",
            "postprocess/test_run.py::test_a_full_disk_ends_the_stage_and_the_rest_is_done_afterwards",
            f"{FILES}test_f05_a_full_disk_in_the_report_is_no_failed_report",
            f"{FILES}test_f05_a_disk_that_is_out_of_order_is_one_line_and_the_search_goes_on_afterwards",
            f"{CHAOS}test_a_search_in_which_everything_goes_wrong_ends_like_one_in_which_nothing_did",
        ),
        "Needed bytes are known where a file is written whole; the chaos run fills a real disk where it may mount one.",
    ),
    Row(
        "F6",
        "SIGKILL to the worker of a trial",
        "a note; the trial goes on from its last complete checkpoint, its numbers are the same; after four deaths "
        "without another epoch it is FAILED",
        (
            f"{KILLED}test_f06_f07_a_worker_killed_in_the_writing_of_a_checkpoint_goes_on_from_the_one_before",
            f"{ENDINGS}test_f06_a_process_that_dies_is_started_again_and_given_up_when_it_gets_nowhere",
            "search/test_scheduler.py::test_a_trial_whose_process_dies_comes_again_until_it_gets_no_further",
        ),
    ),
    Row(
        "F7",
        "a kill during the writing of a checkpoint; a damaged one",
        "a checkpoint counts once its manifest (sizes, SHA-256) is written, last; stale files go",
        (
            f"{KILLED}test_f06_f07_a_worker_killed_in_the_writing_of_a_checkpoint_goes_on_from_the_one_before",
            f"{FILES}test_f07_f31_a_damaged_checkpoint_is_never_used_and_changes_no_number",
            f"{FILES}test_the_metrics_of_a_trial_that_goes_on_are_those_of_its_checkpoint",
        ),
    ),
    Row(
        "F8",
        "a node is lost",
        "its trials move to other nodes, none counts as failed; a broken connection is put down to the node once Ray "
        "finds it gone",
        (
            "cluster/test_nodes.py::"
            "test_gpus_are_packed_a_reference_has_a_node_a_lost_node_costs_nothing_and_a_new_one_is_used",
            "cluster/test_nodes_home.py::test_a_broken_connection_is_put_down_to_a_node_that_is_found_lost_soon_after",
            "search/test_scheduler.py::test_a_process_that_is_unavailable_is_put_down_to_its_node_where_one_is_lost",
        ),
    ),
    Row(
        "F9",
        "SIGTERM (pre-emption)",
        "exit 75 within 10 s, the command to go on with",
        (
            f"{KILLED}test_f09_sigterm_saves_within_ten_seconds_and_tells_how_to_go_on",
            "search/test_signals.py::test_a_signal_ends_the_process_with_its_code",
        ),
    ),
    Row(
        "F10",
        "Ctrl-C (SIGINT to the driver and all its processes)",
        "the same, exit 130",
        (
            f"{KILLED}test_f10_ctrl_c_in_a_terminal_does_the_same",
            "search/test_signals.py::test_a_second_signal_does_not_wait",
            f"{FILES}test_f10_nothing_interrupts_the_end_of_an_interrupted_search",
        ),
    ),
    Row(
        "F11",
        "a second driver on one run; a stale lock",
        "exit 2, `locked by host/pid since ...`; a lock whose driver is dead is taken over with a note; between hosts "
        "whose file system shares no locks, a heartbeat decides; of two that begin at once, one is refused and leaves "
        "the folder alone",
        (
            f"{KILLED}test_f11_a_second_driver_is_refused_and_told_who_holds_the_run",
            f"{FILES}test_f11_a_lock_of_another_machine_is_respected_while_its_heart_beats",
            f"{FILES}test_f11_the_heart_of_a_driver_beats",
            f"{FILES}test_f11_a_lock_of_another_machine_whose_clock_runs_ahead_says_how_to_go_on",
            f"{FILES}test_f11_a_lock_with_rubbish_in_it_is_one_line",
            f"{FILES}test_f11_only_one_of_two_drivers_has_made_the_folder",
            f"{FILES}test_f11_a_driver_that_is_refused_leaves_the_run_of_the_other_alone",
            "faults/test_security.py::test_S7_a_run_at_which_another_driver_works_is_looked_at_all_the_same",
        ),
    ),
    Row(
        "F12",
        "a NaN metric",
        "DIVERGED in that epoch, never best, in no rung",
        (
            f"{ENDINGS}test_f12_f13_a_metric_that_is_no_number_diverges_in_that_epoch_and_is_never_best",
            "search/test_scheduler.py::test_what_is_no_number_diverges_at_once_and_leaves_the_others_alone",
            "search/test_trial.py::test_a_loss_that_is_no_number_ends_the_trial",
        ),
    ),
    Row(
        "F13",
        "an infinite, empty, missing or text metric",
        "the same; other trials are unaffected",
        (
            f"{ENDINGS}test_f12_f13_a_metric_that_is_no_number_diverges_in_that_epoch_and_is_never_best",
            f"{ENDINGS}test_f12_f13_other_trials_are_unaffected",
        ),
    ),
    Row(
        "F14",
        "all trials diverge",
        "exit 3 with the reason of each; no model",
        (f"{ENDINGS}test_f14_all_trials_diverge",),
    ),
    Row(
        "F15",
        "a reference beside ASHA",
        "every epoch, in no rung",
        (
            "search/test_scheduler.py::test_a_reference_is_never_stopped_and_enters_no_rung",
            f"{KILLED}test_f02_epochs_and_stop_decisions_are_those_of_an_undisturbed_search",
        ),
    ),
    Row(
        "F16",
        "a configuration that always fails",
        "one retry, then FAILED, traceback in `trials/<id>/error.txt`; the search goes on",
        (
            f"{ENDINGS}test_f16_what_always_fails_is_tried_twice_and_leaves_its_traceback",
            f"{ENDINGS}test_f16_what_fails_once_goes_on",
            "search/test_scheduler.py::test_a_trial_that_fails_comes_again_once_and_then_keeps_its_traceback",
        ),
    ),
    Row(
        "F17",
        "CUDA out of memory",
        "one retry from the checkpoint on a larger share, or in smaller parts of the same batch",
        (
            f"{ENDINGS}test_f17_out_of_memory_comes_back_once_with_smaller_parts_of_the_same_batch",
            "search/test_tuning.py::"
            "test_a_trial_out_of_memory_comes_back_once_from_its_checkpoint_with_more_memory_or_fails_alone",
            "search/test_resources.py::test_each_return_has_more_room_until_nothing_larger_is_left",
        ),
    ),
    Row(
        "F18",
        "GPU shares",
        "each process is capped at its share; shares never sum above 1",
        (
            "search/test_resources.py::test_a_process_is_capped_so_that_capped_processes_and_their_contexts_fit_the_gpu",
            "search/test_tuning.py::test_shares_pack_two_gpus_and_a_trial_finds_torch_imported",
            "search/test_config.py::test_bad_values_are_refused_with_the_remedy",
        ),
        "With a mocked `torch.cuda` and GPUs that only Ray believes in.",
    ),
    Row(
        "F19",
        "the memory of a node runs out and Ray ends a process",
        "`the memory of the node ran out ...`, cause `memory` in the ledger, counted apart from other deaths",
        (
            f"{WORKERS}test_f19_a_process_that_the_memory_of_its_node_ended_is_named_as_such",
            "search/test_scheduler.py::test_a_trial_whose_process_dies_comes_again_until_it_gets_no_further",
        ),
    ),
    Row(
        "F20",
        "a trial that hangs",
        "after `resources.hang_minutes` (180; null is never) without an epoch its process ends itself and leaves where "
        "it stood in `hung.txt`; one retry, then FAILED with HUNG",
        (f"{ENDINGS}test_f20_a_trial_that_hangs_is_started_again_once_and_then_hung",),
    ),
    Row(
        "F21",
        "a data-loading worker dies",
        "the error of the trial, with traceback; one retry",
        (
            f"{WORKERS}test_f21_a_data_loading_worker_that_dies_is_an_error_with_its_traceback",
            f"{ENDINGS}test_f16_what_fails_once_goes_on",
        ),
    ),
    Row(
        "F22",
        "W&B's service dead, failing or hanging",
        "one warning, which tells how to send later what W&B lacks; training finishes; closing, report included, takes "
        "30 s at most",
        (
            "search/test_tracking.py::test_a_dead_service_gives_one_warning",
            "search/test_tracking.py::test_a_hanging_service_holds_nothing_up",
            "search/test_tracking.py::test_a_process_that_cannot_start_gives_one_warning",
            "search/test_tracking.py::"
            "test_a_search_has_one_tracker_from_its_first_trial_to_its_report_and_closes_it_once",
            "search/test_wandb.py::test_a_server_that_falls_silent_delays_the_end_by_little_and_gets_all_of_it_later",
            "search/test_wandb.py::test_what_a_killed_service_lost_is_taken_from_the_trials_own_table",
        ),
    ),
    Row(
        "F23",
        "a kill with W&B offline",
        "the ledger has every completed epoch, W&B's files each step once",
        (
            "search/test_tracking.py::test_a_killed_driver_loses_no_row_and_a_resumed_one_repeats_none",
            "search/test_wandb.py::test_a_line_that_a_kill_cut_short_loses_no_row",
        ),
    ),
    Row(
        "F24",
        "a missing chunk",
        "array, index and path, at preflight and at read",
        (
            "data_io/test_integrity.py::test_the_preflight_names_all_faults_at_once",
            "data_io/test_integrity.py::test_reading_names_array_chunk_and_path",
        ),
    ),
    Row(
        "F25",
        "a chunk or shard flipped, cut or empty",
        "found 200 times of 200",
        (
            "data_io/test_integrity.py::test_two_hundred_corruptions_are_found_by_name",
            f"{FILES}test_f25_a_changed_chunk_of_the_data_set_of_a_run_is_named_when_it_goes_on",
        ),
    ),
    Row(
        "F26",
        "a conversion killed",
        "the store is refused until a rerun completes it",
        (
            "data_io/test_integrity.py::test_a_killed_conversion_is_completed_by_the_next",
            "data_io/test_integrity.py::test_twenty_killed_conversions_are_completed_by_the_next",
            "data_io/test_integrity.py::test_an_unfinished_store_is_refused_and_says_who_began_it",
        ),
    ),
    Row(
        "F27",
        "a misaligned parallel write",
        "refused before anything is written; aligned ones lose no row",
        (
            "data_io/test_integrity.py::test_a_region_that_cuts_a_chunk_is_refused_before_anything_is_written",
            "data_io/test_integrity.py::test_aligned_parallel_writers_lose_no_row",
        ),
    ),
    Row(
        "F28",
        "a Dask or Ray worker killed in post-processing",
        "the result is that of one process",
        (
            "postprocess/test_schedulers.py::"
            "test_a_dead_dask_worker_changes_nothing_and_a_frame_that_kills_workers_is_listed",
            "postprocess/test_schedulers.py::test_a_frame_that_kills_ray_workers_is_listed_and_the_rest_is_done",
        ),
    ),
    Row(
        "F29",
        "a poison frame",
        "listed; the others are done; exit 4",
        (
            "postprocess/test_run.py::test_a_poison_frame_is_listed_and_the_others_are_done",
            "postprocess/test_schedulers.py::test_a_frame_that_kills_ray_workers_is_listed_and_the_rest_is_done",
        ),
    ),
    Row(
        "F30",
        "a Dask scheduler killed",
        "one line; a rerun does only the rest",
        (
            "postprocess/test_schedulers.py::test_a_dask_scheduler_that_is_killed_is_told_and_a_rerun_does_the_rest",
            "postprocess/test_schedulers.py::test_a_dask_cluster_that_loses_its_workers_for_good_is_not_waited_for",
        ),
    ),
    Row(
        "F31",
        "a checkpoint or model flipped, cut or foreign",
        "a trial's is passed over for the one before, and a trial that has ended is trained again from there; a model "
        "is refused with the difference, and a run chooses it again",
        (
            f"{FILES}test_f07_f31_a_damaged_checkpoint_is_never_used_and_changes_no_number",
            "search/test_trial.py::test_a_damaged_checkpoint_is_not_used",
            f"{FILES}test_a_completed_trial_that_lost_its_best_checkpoint_is_trained_again_with_the_same_numbers",
            "search/test_select.py::test_a_choice_that_was_damaged_is_made_again_and_is_the_same",
            "search/test_handover.py::test_a_changed_digit_in_the_facts_is_refused",
            "search/test_handover.py::test_a_flipped_bit_in_the_weights_is_refused",
            "search/test_handover.py::test_weights_of_another_network_are_refused",
        ),
    ),
    Row(
        "F32",
        "configuration, code or data changed on resume",
        "exit 2 with `name: old -> new`; `--accept-change` goes on, and ledger and report keep it",
        (
            f"{FILES}test_f32_what_changed_is_shown_and_refused_unless_accepted_which_is_kept",
            f"{FILES}test_f32_a_changed_configuration_is_refused_before_anything_is_done",
            f"{KILLED}test_f32_changed_code_is_refused_with_the_difference",
            "test_line.py::test_another_configuration_on_the_same_run_is_refused_with_the_difference",
        ),
    ),
    Row(
        "F33",
        "a finished search resumed",
        "no training, the same report, exit 0; the ledger is not touched",
        (
            f"{KILLED}test_f33_a_finished_search_trains_nothing_and_ends_the_same",
            "test_line.py::test_the_same_command_again_trains_nothing_and_gives_the_same_numbers",
        ),
    ),
    Row(
        "F34",
        "no, one or two cells; constant values; NaN",
        "`not tested: reason`; no NaN in a correction",
        (
            "analysis/test_statistics.py::test_not_tested_with_a_reason",
            "analysis/test_statistics.py::test_untested_stay_out_of_a_correction",
        ),
    ),
    Row(
        "F35",
        "the report fails",
        "exit 5; the numbers are written, the traceback in `report_error.txt`",
        (f"{FILES}test_f35_a_report_that_fails_leaves_the_numbers_and_its_traceback",),
    ),
    Row(
        "F36",
        "the address of a stale or foreign Ray cluster",
        "it is named and never joined",
        (
            "cluster/test_start.py::test_an_address_in_the_environment_is_named",
            "cluster/test_start.py::test_the_address_file_is_named_with_its_state",
            "cluster/test_start.py::test_a_local_session_listens_here_alone_and_ignores_foreign_addresses",
        ),
    ),
    Row(
        "F37",
        "Optuna's storage torn",
        "`optuna.db` is never read back, it is made anew from the ledger",
        (
            f"{KILLED}test_f37_a_cut_optuna_file_is_made_anew_from_the_ledger",
            f"{FILES}test_f04_f37_files_that_follow_from_the_ledger_are_made_anew",
            "search/test_proposals.py::test_a_file_that_cannot_be_written_is_said_once_and_hurts_nothing",
        ),
    ),
    Row(
        "Ray",
        "Ray of this machine dies under the driver",
        "exit 75 within seconds, which process died, how to go on; no process is left",
        (f"{KILLED}test_the_death_of_this_machines_ray_ends_the_search_at_once",),
    ),
    Row(
        "order",
        "0, 1 or 2 loading workers; interrupted or not",
        "the same crops in the same order, the same weights bit by bit on a CPU",
        (
            "search/test_trial.py::"
            "test_crops_come_in_the_same_order_from_memory_and_streams_for_any_number_of_loading_workers",
            "search/test_trial.py::test_an_interrupted_trial_ends_with_the_numbers_and_weights_of_an_undisturbed_one",
            "data_io/test_stream.py::test_order_is_the_same_for_any_number_of_workers_and_after_an_interruption",
        ),
    ),
)


def as_markdown() -> str:
    """Return the table; each row links the files of its tests."""
    lines = ["| | what happens | what the user sees | shown by |", "|---|---|---|---|"]
    for row in TABLE:
        files = dict.fromkeys(test.partition("::")[0] for test in row.tests)
        shown = ", ".join(f"[{file}](../{file})" for file in files)
        note = f" *{row.note}*" if row.note else ""
        lines.append(f"| {row.name} | {row.inject} | {row.seen}{note} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")

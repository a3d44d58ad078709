//! Every end-to-end test, in the order in which they run: one kernel, two cores.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::process::ExitCode;

mod suite {
    pub mod browser;
    pub mod commands;
    pub mod conservation;
    pub mod containers;
    pub mod emulated;
    pub mod envoy;
    pub mod examiner;
    pub mod exporters;
    pub mod filters;
    pub mod guard;
    pub mod guides;
    pub mod images;
    pub mod known_truth;
    pub mod lives;
    pub mod memory;
    pub mod menagerie;
    pub mod native;
    pub mod noise;
    pub mod opinion;
    pub mod otlp;
    pub mod packages;
    pub mod places;
    pub mod refusals;
    pub mod rights;
    pub mod runtimes;
    pub mod secrets;
    pub mod shapes;
    pub mod surroundings;
}

use suite::*;

fn main() -> ExitCode {
    everflame_tests::runner::run(&[
        ("examiner::hostile_memory_rows_and_mappings", examiner::hostile_memory_rows_and_mappings),
        ("refusals::random_bytes_are_refused_clearly", refusals::random_bytes_are_refused_clearly),
        ("refusals::strangers_and_wrong_parameters", refusals::strangers_and_wrong_parameters),
        ("noise::noise_in_query_parameters", noise::noise_in_query_parameters),
        ("noise::noise_over_grpc", noise::noise_over_grpc),
        ("otlp::the_opentelemetry_profilers_shape_over_http", otlp::over_http),
        ("otlp::the_opentelemetry_profilers_shape_over_grpc", otlp::over_grpc),
        (
            "guard::tokens_and_certificates_turn_and_nothing_is_lost",
            guard::tokens_and_certificates_turn_and_nothing_is_lost,
        ),
        ("guard::up_lets_its_own_agent_in", guard::up_lets_its_own_agent_in),
        ("surroundings::port_in_use", surroundings::port_in_use),
        ("surroundings::read_only_data_directory", surroundings::read_only_data_directory),
        ("surroundings::full_disk", surroundings::full_disk),
        ("surroundings::not_root", surroundings::not_root),
        ("surroundings::no_btf", surroundings::no_btf),
        ("surroundings::hostile_elf_files", surroundings::hostile_elf_files),
        ("rights::every_subset_of_the_capabilities", rights::every_subset_of_the_capabilities),
        ("rights::the_web_server_has_none", rights::the_web_server_has_none),
        ("containers::root_with_six_capabilities", containers::root_with_six_capabilities),
        ("containers::nobody_with_six_capabilities", containers::nobody_with_six_capabilities),
        ("containers::samplers_that_meet", containers::samplers_that_meet),
        ("containers::pins_without_a_spool", containers::pins_without_a_spool),
        ("images::what_is_in_it", images::what_is_in_it),
        ("images::what_it_is_made_of", images::what_it_is_made_of),
        ("images::server_without_rights", images::server_without_rights),
        ("images::agent_with_six_capabilities", images::agent_with_six_capabilities),
        ("images::names_and_certificates", images::names_and_certificates),
        ("emulated::the_arm64_program", emulated::the_arm64_program),
        ("packages::the_units_are_sound", packages::the_units_are_sound),
        ("packages::lintian_finds_no_error", packages::lintian_finds_no_error),
        ("packages::installed_used_and_purged", packages::installed_used_and_purged),
        ("secrets::a_key_that_is_replaced", secrets::a_key_that_is_replaced),
        ("secrets::up_sends_as_well", secrets::up_sends_as_well),
        ("filters::denied_by_executable", filters::denied_by_executable),
        ("filters::allowed_by_executable", filters::allowed_by_executable),
        ("filters::by_namespace_and_label", filters::by_namespace_and_label),
        ("secrets::a_secret_that_is_not_to_be_had", secrets::a_secret_that_is_not_to_be_had),
        ("known_truth::cpp_without_frame_pointers", known_truth::cpp),
        ("known_truth::rust", known_truth::rust),
        ("known_truth::go", known_truth::go),
        ("known_truth::musl_static", known_truth::musl),
        ("shapes::deep_recursion", shapes::deep_recursion),
        ("native::every_shape_of_stack", native::every_shape_of_stack),
        ("shapes::thread_names", shapes::thread_names),
        ("lives::at_97_hertz", lives::at_97_hertz),
        ("lives::at_20_hertz", lives::at_20_hertz),
        ("lives::in_another_root", lives::in_another_root),
        ("places::library_loaded_late", places::library_loaded_late),
        ("places::library_in_the_place_of_another", places::library_in_the_place_of_another),
        ("places::code_not_in_memory", places::code_not_in_memory),
        ("places::deleted_executable", places::deleted_executable),
        ("places::other_mount_namespace", places::other_mount_namespace),
        ("runtimes::cpython", runtimes::cpython),
        ("runtimes::jvm", runtimes::jvm),
        ("runtimes::node", runtimes::node),
        ("menagerie::stacks_of_every_kind_reach_their_root", menagerie::stacks_of_every_kind_reach_their_root),
        ("envoy::whole_stacks_that_perf_agrees_with", envoy::whole_stacks_that_perf_agrees_with),
        ("memory::a_limit_that_holds", memory::a_limit_that_holds),
        ("opinion::two_walks_agree", opinion::two_walks_agree),
        ("conservation::taken_is_the_kernels_run_count", conservation::taken_is_the_kernels_run_count),
        ("conservation::outages_and_kills", conservation::outages_and_kills),
        (
            "exporters::one_killed_one_refusing_and_the_agent_killed",
            exporters::one_killed_one_refusing_and_the_agent_killed,
        ),
        ("conservation::another_bpf_program_busy", conservation::another_bpf_program_busy),
        ("commands::record_writes_every_format", commands::record_writes_every_format),
        ("commands::record_ends_as_its_command", commands::record_ends_as_its_command),
        ("commands::top_and_doctor", commands::top_and_doctor),
        ("commands::wrong_use_ends_with_2", commands::wrong_use_ends_with_2),
        ("guides::quick_start", guides::quick_start),
        ("guides::operations", guides::operations),
        ("guides::integration", guides::integration),
        ("guides::troubleshooting", guides::troubleshooting),
        ("browser::the_page_in_a_real_browser", browser::the_page_in_a_real_browser),
    ])
}

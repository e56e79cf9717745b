//! The same on an older kernel, Debian's 6.1: the oldest that MC-Proxy runs on.

use mc_testkit::machine::Machine;
use mc_testkit::{left_out, machine, requires};

#[test]
fn the_oldest_kernel_takes_it_and_judges_alike() {
    let [a, b, c, d, e] = machine::TOOLS;
    requires!(root, a, b, c, d, e);
    let Some(machine) = Machine::new() else {
        return left_out("needs Debian's kernel in /boot (see services/testkit/packages.txt)");
    };
    machine.install(&std::env::current_exe().unwrap(), "/test");
    let tests = "/test --exact --nocapture program::the_verifier_has_little_to_do differential::all_flags_are_judged_alike \
                 differential::rates_are_judged_alike differential::long_frames_are_judged_alike_in_one_piece_or_several \
                 differential::headers_behind_the_first_piece_of_a_long_frame_are_refused";
    let said = machine.run(&format!("{tests} && echo THE MACHINE SAYS YES"));
    println!("{said}");
    assert!(said.contains("5 passed") && said.contains("THE MACHINE SAYS YES"), "{said}");
}

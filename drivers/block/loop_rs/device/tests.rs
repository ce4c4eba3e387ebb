// SPDX-License-Identifier: GPL-2.0

//! Unit tests of the states of a device.

use kernel::prelude::*;

#[kunit_tests(loop_rs_device)]
mod suite {
    use super::super::*;

    const PHASES: [Phase; 4] = [
        Phase::Unbound,
        Phase::Bound,
        Phase::Rundown,
        Phase::Deleting,
    ];

    /// All pairs. Rows are the old phase, columns the new one, in the order of [`PHASES`].
    #[test]
    fn transitions() {
        const ALLOWED: [[bool; 4]; 4] = [
            [false, true, false, true],
            [false, false, true, false],
            [true, false, false, false],
            [false, false, false, false],
        ];
        for (from, row) in PHASES.into_iter().zip(ALLOWED) {
            for (to, allowed) in PHASES.into_iter().zip(row) {
                assert_eq!(from.leads_to(to), allowed);
            }
        }
    }

    /// A device that is being deleted cannot change its state.
    #[test]
    fn deleting_is_final() -> Result {
        let driver = DriverData::new(false)?;
        let device = Device::new(driver, 1_000_000)?;
        let mut state = device.state.lock();
        assert!(device.is_unbound());
        assert!(state.bound().is_err());
        assert!(device.enter(&mut state, State::Deleting).is_ok());
        assert!(!device.is_unbound());
        assert!(device.enter(&mut state, State::Unbound).is_err());
        device.run_down(&mut state);
        assert!(matches!(*state, State::Deleting));
        assert!(state.bound().is_err());
        Ok(())
    }
}

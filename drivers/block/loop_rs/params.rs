// SPDX-License-Identifier: GPL-2.0

//! The module parameters.

use crate::LoopModule;
use kernel_ext::{module_params, setup_param, uapi::loop_::DEFAULT_COUNT};

module_params! {
    LoopModule;
    /// Number of devices that are created at load time. If given and not 0, opening a device node
    /// creates a device only if its number is below this.
    max_loop: int = DEFAULT_COUNT, min 0, "Maximum number of loop devices";
    /// Number of partitions of a device with minor numbers of the loop major.
    max_part: int = 0, min i32::MIN, "Maximum number of partitions per loop device";
    /// Number of tags of a device.
    hw_queue_depth: int = 128, min 1, "Queue depth for each hardware queue. Default: 128";
    /// Time in milliseconds that the worker of a cgroup is kept when it is idle.
    idle_worker_timeout_ms: int = 60000, min 1,
        "How long an idle worker of a cgroup is kept, in milliseconds. Default: 60000";
}

// Like the C driver, `max_loop=` on the kernel's command line works without the module name.
setup_param!(max_loop);

// SPDX-License-Identifier: GPL-2.0

//! The driver under test as a module: loading and unloading.

use super::{broken, Outcomes};
use crate::{
    sys::{Arena, Uevents},
    world::{context, open, Setup, World},
};
use libc::O_RDWR;
use nix::{
    errno::Errno,
    kmod::{self, DeleteModuleFlags},
};
use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// Flag of `finit_module`: the kernel decompresses the file.
const MODULE_INIT_COMPRESSED_FILE: u32 = 4;

/// The driver under test.
pub struct Session {
    pub module: PathBuf,
    pub name: String,
    pub dir: PathBuf,
    pub slow: u32,
}

impl Session {
    pub fn is_loaded(&self) -> bool {
        Path::new("/sys/module").join(&self.name).exists()
    }

    pub fn load(&self, parameters: &str) -> Result<(), Errno> {
        let file = File::open(&self.module).map_err(|_| Errno::ENOENT)?;
        let parameters = CString::new(parameters).map_err(|_| Errno::EINVAL)?;
        // Distributions compress modules.
        let flags = match self.module.extension().is_some_and(|ext| ext != "ko") {
            true => kmod::ModuleInitFlags::from_bits_retain(MODULE_INIT_COMPRESSED_FILE),
            false => kmod::ModuleInitFlags::empty(),
        };
        kmod::finit_module(&file, &parameters, flags)
    }

    /// Unloads the driver. Repeated for a while: the last reference to the module can be dropped
    /// after `close()` of a device has returned.
    pub fn unload(&self) -> Setup<()> {
        let name = CString::new(self.name.as_str()).map_err(context("name"))?;
        let end = Instant::now() + Duration::from_secs(10) * self.slow;
        loop {
            match kmod::delete_module(&name, DeleteModuleFlags::O_NONBLOCK) {
                Ok(()) => return Ok(()),
                Err(Errno::EAGAIN | Errno::EBUSY) if Instant::now() < end => {
                    sleep(Duration::from_millis(5));
                }
                Err(errno) => return Err(format!("rmmod {}: {errno:?}", self.name)),
            }
        }
    }

    /// Loads the driver, runs the scenario and removes its devices.
    pub fn with(&self, parameters: &str, f: fn(&Session, &World) -> Setup<Outcomes>) -> Outcomes {
        let run = || {
            self.load(parameters).map_err(context("insmod"))?;
            let world = self.world()?;
            let outcomes = f(self, &world);
            for nr in 0..8 {
                world.remove(nr)?;
            }
            outcomes
        };
        run().unwrap_or_else(broken)
    }

    pub fn world(&self) -> Setup<World> {
        let dir = self.dir.join("scenario");
        fs::create_dir_all(&dir).map_err(context("mkdir"))?;
        Ok(World {
            control: open("/dev/loop-control", O_RDWR).map_err(context("/dev/loop-control"))?,
            arena: Arena::new().map_err(context("mmap"))?,
            uevents: Uevents::listen().map_err(context("uevents"))?,
            dir,
            base: 0,
            // No state uses this RAM disk.
            ram: 60,
            slow: self.slow,
        })
    }
}

//! What the tests share: one cluster, started by the first that needs it.

use std::sync::{Mutex, MutexGuard, OnceLock};

use everflame_kubernetes::images::Image;
use everflame_kubernetes::{Plane, plane};
use everflame_tests::target::built;
use everflame_tests::{Outcome, Skip, everflame, machine};

/// Why nothing can run here.
pub static WHY: OnceLock<String> = OnceLock::new();

static PLANE: Mutex<Option<Plane>> = Mutex::new(None);

/// The outcome of every test then.
pub fn skip() -> Outcome {
    Err(Skip(WHY.get().cloned().unwrap_or_default()))
}

/// The cluster, with the images that the tests use.
#[derive(Debug)]
pub struct Stage(MutexGuard<'static, Option<Plane>>);

impl Stage {
    /// Starts it unless it runs.
    pub fn open() -> Result<Self, Skip> {
        let mut plane = PLANE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if plane.is_none() {
            let truth = built("truth_musl")?;
            let started = Plane::start(&plane::binaries()?);
            started.import(&Image::everflame(&everflame::binary()));
            started.import(&Image::new("truth:1", &[("truth", &truth)], &["/truth"]));
            let envoy = machine::cache().join("envoy");
            if let Ok(envoy) = envoy.canonicalize() {
                started.import(&Image::new("proxy:1", &[("envoy", &envoy)], &["/envoy"]).with_libraries());
            }
            *plane = Some(started);
        }
        Ok(Self(plane))
    }
}

impl std::ops::Deref for Stage {
    type Target = Plane;

    fn deref(&self) -> &Plane {
        self.0.as_ref().expect("open() put it there")
    }
}

impl std::ops::DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Plane {
        self.0.as_mut().expect("open() put it there")
    }
}

/// Ends the cluster.
pub fn end() {
    drop(PLANE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
}

//! Segment one binary PPM image with the CPU graph of an engine folder, from Rust. No crate is needed, only
//! `apt-get install bindgen rustc`:
//!
//!     bindgen --allowlist-function 'gmsrt_.*' --allowlist-var 'GMSRT_.*' gms_rt.h -o gms_rt.rs
//!     GMS_RT_BINDINGS=$PWD/gms_rt.rs rustc -O segment.rs -L /usr/local/lib -l gms_rt
//!     ./segment engines/busi-int8 scan.ppm mask.pgm
//!
//! The mask is that of `gms-rt infer`, byte for byte.

use std::ffi::{CStr, CString};
use std::fmt;

#[allow(non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code, clippy::all)]
mod ffi {
    include!(env!("GMS_RT_BINDINGS"));
}

/// Probability from which a pixel is foreground, as in gms-rt infer.
const THRESHOLD: f64 = 0.5;

/// A status that is not GMSRT_OK, with the library's one line about it.
#[derive(Debug)]
struct Error {
    status: ffi::gmsrt_status,
    message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        // SAFETY: the name is static text.
        let name = unsafe { CStr::from_ptr(ffi::gmsrt_status_name(self.status)) };
        write!(to, "{} ({})", self.message, name.to_string_lossy())
    }
}

impl std::error::Error for Error {}

fn check(status: ffi::gmsrt_status) -> Result<(), Error> {
    if status == ffi::GMSRT_OK as ffi::gmsrt_status {
        return Ok(());
    }
    // SAFETY: text of this thread, valid until its next call; it is copied at once.
    let message = unsafe { CStr::from_ptr(ffi::gmsrt_last_error()) };
    Err(Error { status, message: message.to_string_lossy().into_owned() })
}

/// An opened graph; closed when it is dropped.
struct Runner {
    runner: *mut ffi::gmsrt_runner,
    height: u32,
    width: u32,
}

// SAFETY: gms_rt.h allows every call on a runner from any thread, and at the same time; only closing must be the last
// one, which ownership ensures.
unsafe impl Send for Runner {}
unsafe impl Sync for Runner {}

impl Runner {
    fn open_cpu(graph: &str) -> Result<Runner, Box<dyn std::error::Error>> {
        let graph = CString::new(graph)?;
        let mut opened = Runner { runner: std::ptr::null_mut(), height: 0, width: 0 };
        let mut info = std::mem::MaybeUninit::<ffi::gmsrt_info>::zeroed();
        let size = std::mem::size_of::<ffi::gmsrt_info>() as _;
        // SAFETY: the text and both results live through the calls; options may be null; zeros are a valid gmsrt_info.
        let info = unsafe {
            check(ffi::gmsrt_open_cpu(graph.as_ptr(), std::ptr::null(), &mut opened.runner))?;
            check(ffi::gmsrt_get_info(opened.runner, info.as_mut_ptr(), size))?;
            info.assume_init()
        };
        opened.height = info.height;
        opened.width = info.width;
        Ok(opened)
    }

    /// The foreground of an RGB image, at its size: 0 or 255.
    fn mask(&self, rgb: &[u8], height: u32, width: u32) -> Result<Vec<u8>, Error> {
        let pixels = height as usize * width as usize;
        assert_eq!(rgb.len(), 3 * pixels, "the image has another size");
        let network = self.height as usize * self.width as usize;
        let (mut input, mut levels, mut mask) = (vec![0; 3 * network], vec![0; network], vec![0; pixels]);
        // SAFETY: every buffer has the size that the call is told.
        unsafe {
            check(ffi::gmsrt_resize_image(rgb.as_ptr(), height, width, 3, input.as_mut_ptr(), self.height, self.width))?;
            check(ffi::gmsrt_infer(self.runner, input.as_ptr(), 1, levels.as_mut_ptr()))?;
            check(ffi::gmsrt_mask_from_levels(
                levels.as_ptr(), self.height, self.width, THRESHOLD, mask.as_mut_ptr(), height, width,
            ))?;
        }
        Ok(mask)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // SAFETY: the last call on it; null is allowed.
        unsafe { ffi::gmsrt_close(self.runner) }
    }
}

/// Width, height and pixels of a binary PPM of 8 bits, without comments.
fn read_ppm(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let mut fields = bytes.splitn(5, |byte| byte.is_ascii_whitespace());
    let mut word = || std::str::from_utf8(fields.next()?).ok();
    let (kind, width, height, most) = (word()?, word()?.parse().ok()?, word()?.parse().ok()?, word()?);
    let pixels = fields.next()?;
    let size = 3 * u64::from(width) * u64::from(height);
    (kind == "P6" && most == "255" && pixels.len() as u64 == size).then(|| (width, height, pixels))
}

fn run(engine: &str, image: &str, out: &str) -> Result<(), Box<dyn std::error::Error>> {
    let bytes = std::fs::read(image)?;
    let (width, height, rgb) = read_ppm(&bytes).ok_or("not an 8-bit binary PPM image")?;
    let mask = Runner::open_cpu(engine)?.mask(rgb, height, width)?;
    let mut file = format!("P5\n{} {}\n255\n", width, height).into_bytes();
    file.extend(mask);
    Ok(std::fs::write(out, file)?)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() != 4 {
        eprintln!("usage: segment ENGINE IMAGE.ppm MASK.pgm");
        std::process::exit(2);
    }
    if let Err(error) = run(&arguments[1], &arguments[2], &arguments[3]) {
        eprintln!("{}", error);
        std::process::exit(1);
    }
}

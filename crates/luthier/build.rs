//! Notes the version of the compiler, which the manifest of a run names.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    if let Ok(said) = Command::new(compiler).arg("--version").output() {
        println!("cargo:rustc-env=LUTHIER_RUSTC={}", String::from_utf8_lossy(&said.stdout).trim());
    }
}

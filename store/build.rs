//! Rebuilds this crate when a migration is added: the files are in another package.

fn main() {
    println!("cargo:rerun-if-changed=../schema/migrations");
}

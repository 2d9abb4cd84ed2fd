//! Says hello under Kmalloc, then prints its peak of resident memory in KiB, for `ci/hello.sh`.

use allocator_global::Kmalloc;

#[global_allocator]
static GLOBAL: Kmalloc = Kmalloc::new();

fn main() {
    println!("Hello under Kmalloc");
    println!("{}", benches::rss::peak_kib());
}

//! Says hello under the system allocator, then prints its peak of resident memory in KiB, for `ci/hello.sh`.

fn main() {
    println!("Hello under the system allocator");
    println!("{}", benches::rss::peak_kib());
}

//! Which layer and which class serve a layout, against a search through all classes.

use allocator_core::config::{CHUNK_SIZE, MAX_OBJECT, PAGE_SIZE, VMALLOC_THRESHOLD};
use allocator_core::kmalloc::Route;
use allocator_core::size_class::SizeClass;
use std::alloc::Layout;

/// Ten bytes are a layout: a word that is cut to a random width, and the logarithm of the alignment.
pub(super) fn play(bytes: &[u8]) {
    for record in bytes.chunks_exact(10) {
        let Some((word, [width, align])) = record.split_first_chunk::<8>() else { return };
        let size = (u64::from_le_bytes(*word) >> (width % 64)) as usize;
        if let Ok(layout) = Layout::from_size_align(size, 1 << (align % 63)) {
            check(layout);
        }
    }
}

fn check(layout: Layout) {
    let (size, align) = (layout.size(), layout.align());
    let fits = |class: &SizeClass| class.size() >= size && class.size().is_multiple_of(align);
    let naive = if size == 0 { None } else { SizeClass::all().find(fits) };
    assert_eq!(SizeClass::of(layout), naive, "{layout:?}");
    if let Some(class) = naive {
        object(class, size, align);
    }
    route(layout);
    // One byte more never gets less.
    if let Ok(more) = Layout::from_size_align(size + 1, align) {
        assert!(served(Route::of(more), more) >= served(Route::of(layout), layout), "{layout:?}");
    }
}

fn object(class: SizeClass, size: usize, align: usize) {
    // Alignment aside, fewer than sixteen bytes are wasted up to 64, and at most a fifth of the object above.
    let waste = class.size() - size;
    let bound = if class.size() <= 64 { waste < 16 } else { waste * 5 <= class.size() };
    assert!(align > 8 || bound, "{size} bytes in {class:?}");
    assert_eq!(SizeClass::new(class.index()), Some(class));
    assert!(class.slab_objects() * class.size() <= class.slab_pages() as usize * PAGE_SIZE);
    assert!(class.sheaf_capacity() > 0);
    let last = class.slab_objects() - 1;
    for n in [0, last / 2, last] {
        assert_eq!(class.object_at(n * class.size()), Some(n));
        assert_eq!(class.object_at(n * class.size() + size.min(class.size() - 1)), None, "{class:?}");
    }
    assert_eq!(class.object_at(class.slab_objects() * class.size()), None);
}

fn route(layout: Layout) {
    let (size, align) = (layout.size().max(1), layout.align());
    match Route::of(layout) {
        Route::Object(class) => assert!(class.size() >= size && class.size().is_multiple_of(align), "{layout:?}"),
        Route::Run(pages, order) => {
            assert!(size > MAX_OBJECT || align > MAX_OBJECT, "{layout:?} fits an object");
            assert!(size <= VMALLOC_THRESHOLD && align <= CHUNK_SIZE, "{layout:?} is too much for an arena");
            assert!(pages.bytes() >= size && (PAGE_SIZE << order.get()).is_multiple_of(align), "{layout:?}");
            assert!(pages.bytes() - size < PAGE_SIZE, "{layout:?}: {pages:?}");
        }
        Route::Area => assert!(size > VMALLOC_THRESHOLD || align > CHUNK_SIZE, "{layout:?} fits an arena"),
    }
}

/// Bytes that a layout gets.
fn served(route: Route, layout: Layout) -> usize {
    match route {
        Route::Object(class) => class.size(),
        Route::Run(pages, _) => pages.bytes(),
        Route::Area => layout.size(),
    }
}

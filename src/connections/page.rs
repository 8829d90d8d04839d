//! Pages of a list, bounded by number and by size: they are read in small parts, so that large items
//! neither fill the memory nor exceed what a caller accepts as one message.

/// A page of a list.
#[derive(Debug)]
pub struct Page<T, Next> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Next>,
}

/// Collects a page: at most `size` items, and none after the one with which they exceed [`PAGE_BYTES`].
pub(super) struct Pager<T, Next> {
    items: Vec<T>,
    after: Option<Next>,
    size: u32,
    bytes: usize,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Reading,
    Full,
    AtTheEnd,
}

impl<T, Next> Pager<T, Next> {
    /// For the page after this position.
    pub(super) fn new(after: Option<Next>, size: u32) -> Self {
        Self { items: Vec::new(), after, size, bytes: 0, state: State::Reading }
    }

    /// How many items to read next, after [`Pager::after`]: one more than is taken, to know whether there
    /// are others. `None`: the page is complete.
    pub(super) fn wanted(&self) -> Option<u32> {
        (self.state == State::Reading).then(|| self.part().saturating_add(1))
    }

    /// The position of the last item.
    pub(super) fn after(&self) -> Option<&Next> {
        self.after.as_ref()
    }

    /// Takes the items that were read, each with its size in bytes and its position.
    pub(super) fn take(&mut self, found: Vec<T>, describe: impl Fn(&T) -> (usize, Next)) {
        let part = self.part();
        let has_more = len(&found) > part;
        for item in found.into_iter().take(part as usize) {
            let (bytes, position) = describe(&item);
            if self.bytes > PAGE_BYTES {
                self.state = State::Full;
                return;
            }
            self.bytes = self.bytes.saturating_add(bytes);
            self.after = Some(position);
            self.items.push(item);
        }
        self.state = match has_more {
            false => State::AtTheEnd,
            true if len(&self.items) >= self.size || self.bytes > PAGE_BYTES => State::Full,
            true => State::Reading,
        };
    }

    /// The page.
    pub(super) fn done(self) -> Page<T, Next> {
        let next = self.after.filter(|_| self.state == State::Full);
        Page { items: self.items, next }
    }

    fn part(&self) -> u32 {
        PART.min(self.size.saturating_sub(len(&self.items)))
    }
}

fn len<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// Bytes of a page's items, as they are stored: as a message at most four times as many, which is what
/// gRPC clients accept by default.
const PAGE_BYTES: usize = 1 << 20;
/// Items that are read at once.
const PART: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// The pages of a list of sizes, as the numbers of their items.
    fn pages(sizes: &[usize], size: u32) -> Vec<usize> {
        let mut pages = Vec::new();
        let mut seen = 0;
        let mut after = None;
        loop {
            let mut pager = Pager::new(after, size);
            while let Some(limit) = pager.wanted() {
                let start = pager.after().map_or(0, |after: &usize| *after + 1);
                let items = sizes.iter().copied().enumerate().skip(start);
                pager.take(items.take(limit as usize).collect(), |item| (item.1, item.0));
            }
            let page = pager.done();
            for (index, _) in &page.items {
                assert_eq!(*index, seen, "no item is left out, and none is repeated");
                seen += 1;
            }
            pages.push(page.items.len());
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, sizes.len());
        pages
    }

    #[test]
    fn a_page_is_bounded_by_number_and_by_bytes() {
        assert_eq!(pages(&[], 10), [0]);
        assert_eq!(pages(&[1; 10], 10), [10]);
        assert_eq!(pages(&[1; 11], 10), [10, 1]);
        assert_eq!(pages(&[1; 1001], 1000), [1000, 1]);
        assert_eq!(pages(&[1; 250], 1000), [250]);
        let large = 32 << 10;
        assert_eq!(pages(&vec![large; 80], 1000), [33, 33, 14]);
        assert_eq!(pages(&[PAGE_BYTES * 2; 3], 1000), [1, 1, 1], "one is always returned");
        assert_eq!(pages(&[PAGE_BYTES + 1], 1000), [1]);
    }
}

//! Open files by their ids. An id of a file that was released names nothing, also when its place has been taken.

use super::FileId;

/// Bits of an id that say which place; the others count how often it was taken.
const PLACE_BITS: u32 = 20;
const PLACES_MAX: usize = 1 << PLACE_BITS;

/// Open files of one door.
#[derive(Debug)]
pub(crate) struct FileTable<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for FileTable<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> FileTable<T> {
    /// Gives a file an id; `None` if a million are open.
    pub(crate) fn insert(&mut self, file: T) -> Option<FileId> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < PLACES_MAX => {
                self.places.push((0, None));
                self.places.len() as u32 - 1
            }
            None => return None,
        };
        let (turn, slot) = &mut self.places[place as usize];
        *slot = Some(file);
        Some(FileId(place | *turn << PLACE_BITS))
    }

    fn place(&self, id: FileId) -> Option<usize> {
        let place = id.0 as usize & (PLACES_MAX - 1);
        let (turn, _) = self.places.get(place)?;
        (*turn == id.0 >> PLACE_BITS).then_some(place)
    }

    /// The file, unless it was released.
    pub(crate) fn get(&self, id: FileId) -> Option<&T> {
        self.places[self.place(id)?].1.as_ref()
    }

    /// Takes the file out.
    pub(crate) fn remove(&mut self, id: FileId) -> Option<T> {
        let place = self.place(id)?;
        let (turn, slot) = &mut self.places[place];
        let file = slot.take()?;
        *turn = (*turn + 1) & (u32::MAX >> PLACE_BITS);
        self.free.push(place as u32);
        Some(file)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_id_names_nothing_though_its_place_is_taken() {
        let mut table = FileTable::default();
        let first = table.insert('a').unwrap();
        let other = table.insert('b').unwrap();
        assert_eq!(table.remove(first), Some('a'));
        let next = table.insert('c').unwrap();
        assert_eq!(
            (table.get(first), table.get(next), table.get(other)),
            (None, Some(&'c'), Some(&'b'))
        );
        assert_ne!(first, next);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(FileId(77)), None);
        // The count of turns goes round without touching the place.
        for _ in 0..5_000 {
            let id = table.insert('d').unwrap();
            assert_eq!(table.remove(id), Some('d'));
        }
        assert_eq!(
            (table.get(next), table.get(other)),
            (Some(&'c'), Some(&'b'))
        );
    }
}

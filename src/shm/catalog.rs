//! The catalog: what a segment holds, written once and distrusted once.

use super::layout::{self, CATALOG_OFFSET, Entry, Fixed, MAX_OBJECTS, MAX_PARTICIPANTS};
use super::name;
use crate::error::{Error, Result, Shape};
use crate::memory::{LINE, round_up};
use bytemuck::Zeroable;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum Kind {
    Queue = 1,
    Pipe = 2,
    Value = 3,
    Array = 4,
    Lock = 5,
}

impl Kind {
    fn from_raw(raw: u32) -> Option<Kind> {
        [Kind::Queue, Kind::Pipe, Kind::Value, Kind::Array, Kind::Lock]
            .into_iter()
            .find(|kind| *kind as u32 == raw)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Queue => "queue",
            Kind::Pipe => "pipe",
            Kind::Value => "value",
            Kind::Array => "array",
            Kind::Lock => "lock",
        }
    }
}

/// The type of an object's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeTag {
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) hash: u64,
}

impl TypeTag {
    /// The tag of `T`: size, alignment, and a hash of its name without module
    /// paths, so that two programs may each define the same type.
    pub(crate) fn of<T>() -> TypeTag {
        TypeTag {
            size: size_of::<T>(),
            align: align_of::<T>(),
            hash: layout::fnv1a(plain_name(core::any::type_name::<T>()).as_bytes()),
        }
    }

    /// The tag of byte messages.
    pub(crate) fn bytes() -> TypeTag {
        TypeTag { size: 1, align: 1, hash: layout::fnv1a(b"[u8]") }
    }
}

/// `a::b::C<d::E>` as `C<E>`.
fn plain_name(full: &str) -> String {
    let mut plain = String::new();
    let mut word = String::new();
    let mut rest = full;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("::") {
            word.clear();
            rest = &rest[2..];
        } else {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
            } else {
                plain.push_str(&word);
                word.clear();
                plain.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    plain + &word
}

/// One object, as declared or as validated: a private copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) tag: TypeTag,
    /// Slots, elements or bytes, as the kind says.
    pub(crate) capacity: usize,
    /// Flags of the kind.
    pub(crate) flags: u64,
    /// Where positions start.
    pub(crate) start: u64,
    /// Longest byte message.
    pub(crate) max_len: usize,
    /// Bytes from the start of the file; set by `place`.
    pub(crate) offset: usize,
    /// Bytes.
    pub(crate) len: usize,
}

impl Object {
    pub(crate) fn shape(&self) -> Shape {
        shape(self.kind, self.tag)
    }

    /// Whether this is the kind and type that a caller expects.
    pub(crate) fn expect(&self, kind: Kind, tag: TypeTag) -> Result<()> {
        if (self.kind, self.tag) == (kind, tag) {
            return Ok(());
        }
        Err(Error::TypeMismatch {
            object: self.name.clone(),
            expected: Box::new(shape(kind, tag)),
            found: Box::new(self.shape()),
        })
    }

    fn to_entry(&self) -> Entry {
        let mut entry = Entry::zeroed();
        entry.name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        entry.name_len = self.name.len() as u32;
        entry.kind = self.kind as u32;
        entry.size = self.tag.size as u64;
        entry.align = self.tag.align as u64;
        entry.type_hash = self.tag.hash;
        entry.offset = self.offset as u64;
        entry.len = self.len as u64;
        entry.capacity = self.capacity as u64;
        entry.flags = self.flags;
        entry.start = self.start;
        entry.max_len = self.max_len as u64;
        entry
    }

    fn from_entry(entry: &Entry) -> Result<Object, &'static str> {
        let name = entry.name.get(..entry.name_len as usize).ok_or("length of an object's name")?;
        let name = core::str::from_utf8(name).map_err(|_| "name of an object")?;
        name::check_object(name).map_err(|_| "name of an object")?;
        let number = |n: u64| usize::try_from(n).map_err(|_| "size of an object");
        let align = number(entry.align)?;
        if !align.is_power_of_two() || align > 64 {
            return Err("alignment of an object");
        }
        Ok(Object {
            name: name.to_owned(),
            kind: Kind::from_raw(entry.kind).ok_or("kind of an object")?,
            tag: TypeTag { size: number(entry.size)?, align, hash: entry.type_hash },
            capacity: number(entry.capacity)?,
            flags: entry.flags,
            start: entry.start,
            max_len: number(entry.max_len)?,
            offset: number(entry.offset)?,
            len: number(entry.len)?,
        })
    }
}

fn shape(kind: Kind, tag: TypeTag) -> Shape {
    Shape { kind: kind.name(), size: tag.size, align: tag.align, name_hash: tag.hash }
}

/// Gives every object its place; returns the length of the segment.
pub(crate) fn place(objects: &mut [Object], participants: usize) -> Result<usize> {
    let fail = |object: &str, why| Error::Declaration { object: object.to_owned(), why };
    if objects.len() > MAX_OBJECTS {
        return Err(fail(&objects[MAX_OBJECTS].name, "more than 1024 objects in a segment"));
    }
    for (i, object) in objects.iter().enumerate() {
        name::check_object(&object.name)?;
        if objects[..i].iter().any(|other| other.name == object.name) {
            return Err(fail(&object.name, "declared twice"));
        }
    }
    let overflow = "the segment's size overflows";
    let mut end =
        layout::objects_offset(objects.len(), participants).ok_or_else(|| fail("", overflow))?;
    for object in objects.iter_mut() {
        object.offset = end;
        end = end
            .checked_add(object.len)
            .and_then(|end| round_up(end, LINE))
            .filter(|&end| end <= isize::MAX as usize)
            .ok_or_else(|| fail(&object.name, overflow))?;
    }
    Ok(end)
}

/// The catalog's bytes.
pub(crate) fn encode(objects: &[Object]) -> Vec<u8> {
    objects.iter().flat_map(|o| bytemuck::bytes_of(&o.to_entry()).to_vec()).collect()
}

/// Bytes that the catalog of this segment takes, once its sizes are checked.
pub(crate) fn check_fixed(fixed: &Fixed) -> Result<usize> {
    let bad = |what, at| Err(Error::Corrupt { what, at });
    if fixed.objects as usize > MAX_OBJECTS {
        return bad("number of objects in the header, byte", 52);
    }
    if fixed.participants == 0 || fixed.participants as usize > MAX_PARTICIPANTS {
        return bad("number of participants in the header, byte", 48);
    }
    match layout::objects_offset(fixed.objects as usize, fixed.participants as usize) {
        Some(end) if end as u64 <= fixed.len => Ok(fixed.objects as usize * size_of::<Entry>()),
        _ => bad("length in the header, byte", 16),
    }
}

/// Reads a catalog whose `Fixed` has passed `check_fixed`.
pub(crate) fn decode(fixed: &Fixed, bytes: &[u8]) -> Result<Vec<Object>> {
    if layout::checksum(fixed, bytes) != fixed.checksum {
        return Err(Error::Corrupt { what: "checksum of header and catalog, byte", at: 56 });
    }
    let mut objects: Vec<Object> = Vec::with_capacity(fixed.objects as usize);
    let mut end = layout::objects_offset(fixed.objects as usize, fixed.participants as usize)
        .unwrap_or(usize::MAX);
    for (i, raw) in bytes.chunks_exact(size_of::<Entry>()).enumerate() {
        let at = (CATALOG_OFFSET + i * size_of::<Entry>()) as u64;
        let bad = |what| Error::Corrupt { what, at };
        let object = Object::from_entry(&bytemuck::pod_read_unaligned(raw)).map_err(bad)?;
        // Objects lie in the order of the catalog, so "after the last one"
        // means that none overlap.
        if object.offset < end || object.offset % LINE != 0 {
            return Err(bad("offset of the object in the catalog entry"));
        }
        end = object
            .offset
            .checked_add(object.len)
            .filter(|&end| end as u64 <= fixed.len)
            .ok_or_else(|| bad("length of the object in the catalog entry"))?;
        if objects.iter().any(|other| other.name == object.name) {
            return Err(bad("second object of the same name in the catalog entry"));
        }
        objects.push(object);
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_lose_their_paths() {
        assert_eq!(plain_name("u64"), "u64");
        assert_eq!(plain_name("a::b::C"), "C");
        assert_eq!(plain_name("a::B<c::D, [e::F; 3]>"), "B<D, [F; 3]>");
        assert_eq!(plain_name("(a::B, &c::d::E)"), "(B, &E)");
    }
}

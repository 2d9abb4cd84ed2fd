//! Corpus: the files to be indexed, in one fixed order.
//!
//! It is every regular file under a path, or, without a path, the sources of the packages named in the `Cargo.lock`
//! that this program was built with, as far as the local cargo registry has them. Files are sorted by name; hidden
//! files and symbolic links are left out. A corpus may be longer than what is indexed: the limit takes whole files
//! from the front until the next one would exceed it.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A file of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Its name inside the corpus, the same on every machine.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its length when it was listed.
    pub(crate) bytes: u64,
}

/// The files to be indexed, and what was left out on the way to them.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    /// All files, sorted by name.
    pub(crate) files: Vec<SourceFile>,
    /// Packages of the lock file that were found; none if a path was given.
    pub(crate) packages: usize,
    /// Packages of the lock file that are not on the disk, because no build here needed them.
    pub(crate) absent_packages: usize,
    /// Directories and files that could not be read.
    pub(crate) unreadable: usize,
}

const LOCK_FILE: &str = include_str!("../../Cargo.lock");

impl Corpus {
    /// Lists the files under `path`, or the default corpus. The error is one line for the user.
    pub(crate) fn open(path: Option<&Path>) -> Result<Corpus, String> {
        let corpus = match path {
            Some(path) => Corpus::under(path)?,
            None => Corpus::of_packages(LOCK_FILE, &registry_sources()?)?,
        };
        match (corpus.files.is_empty(), path) {
            (true, Some(path)) => Err(format!("{}: no files to index", path.display())),
            (true, None) => Err("no package of Cargo.lock is in the cargo registry: name a PATH to index".to_string()),
            (false, _) => Ok(corpus),
        }
    }

    fn under(path: &Path) -> Result<Corpus, String> {
        let say = |error: io::Error| format!("{}: {}", path.display(), plain(&error));
        let metadata = fs::metadata(path).map_err(say)?;
        let mut corpus = Corpus::default();
        if metadata.is_dir() {
            fs::read_dir(path).map_err(say)?;
            corpus.walk(path, "");
        } else if metadata.is_file() {
            File::open(path).map_err(say)?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            corpus.files.push(SourceFile { name, path: path.to_path_buf(), bytes: metadata.len() });
        } else {
            return Err(format!("{}: neither a file nor a directory", path.display()));
        }
        corpus.files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(corpus)
    }

    fn of_packages(lock_file: &str, registries: &[PathBuf]) -> Result<Corpus, String> {
        let mut corpus = Corpus::default();
        for package in packages_of(lock_file)? {
            match registries.iter().map(|registry| registry.join(&package)).find(|directory| directory.is_dir()) {
                Some(directory) => {
                    corpus.packages += 1;
                    corpus.walk(&directory, &format!("{package}/"));
                }
                None => corpus.absent_packages += 1,
            }
        }
        corpus.files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(corpus)
    }

    /// Adds the regular files below `directory`. The list of directories still to be read is on the heap, so a deep
    /// tree costs no stack.
    fn walk(&mut self, directory: &Path, prefix: &str) {
        let mut left = vec![(directory.to_path_buf(), prefix.to_string())];
        while let Some((directory, prefix)) = left.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                self.unreadable += 1;
                continue;
            };
            for entry in entries {
                let Ok(entry) = entry else {
                    self.unreadable += 1;
                    continue;
                };
                let file_name = entry.file_name();
                let file_name = file_name.to_string_lossy();
                if file_name.starts_with('.') {
                    continue;
                }
                let name = format!("{prefix}{file_name}");
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => left.push((entry.path(), format!("{name}/"))),
                    Ok(metadata) if metadata.is_file() => {
                        self.files.push(SourceFile { name, path: entry.path(), bytes: metadata.len() });
                    }
                    Ok(_) => {}
                    Err(_) => self.unreadable += 1,
                }
            }
        }
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The files from the front that hold at most `limit` bytes together, but at least one.
    pub(crate) fn within(&self, limit: Option<u64>) -> &[SourceFile] {
        let Some(limit) = limit else { return &self.files };
        let mut bytes = 0;
        let fits = |file: &&SourceFile| {
            bytes += file.bytes;
            bytes <= limit
        };
        let fitting = self.files.iter().take_while(fits).count();
        &self.files[..fitting.max(1).min(self.files.len())]
    }

    /// SHA-256 over the name, length and content of every file; a file that cannot be read counts as its name alone.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        let mut content = Vec::new();
        for file in &self.files {
            hasher.update((file.name.len() as u64).to_le_bytes());
            hasher.update(file.name.as_bytes());
            content.clear();
            if File::open(&file.path).and_then(|mut open| open.read_to_end(&mut content)).is_ok() {
                hasher.update((content.len() as u64).to_le_bytes());
                hasher.update(&content);
            }
        }
        hexadecimal(&hasher.finalize())
    }
}

/// The bytes as text.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `NAME-VERSION` of every package that comes from a registry, sorted.
fn packages_of(lock_file: &str) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        source: Option<String>,
    }
    let lock: Lock = toml::from_str(lock_file).map_err(|error| format!("Cargo.lock: {}", error.message()))?;
    let from_registry = lock.package.into_iter().filter(|package| package.source.is_some());
    Ok(from_registry.map(|package| format!("{}-{}", package.name, package.version)).collect())
}

/// The directories of the local cargo registry that hold unpacked packages, sorted.
fn registry_sources() -> Result<Vec<PathBuf>, String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cargo_home = variable("CARGO_HOME").or_else(|| variable("HOME").map(|home| home.join(".cargo")));
    let cargo_home = cargo_home.ok_or("neither CARGO_HOME nor HOME is set: name a PATH to index")?;
    let sources = cargo_home.join("registry").join("src");
    let say = |error: io::Error| format!("{}: {}; name a PATH to index", sources.display(), plain(&error));
    let entries = fs::read_dir(&sources).map_err(say)?;
    let mut registries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    registries.sort();
    Ok(registries)
}

/// What the system says of an error, without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn corpus_is_sorted_and_leaves_out_hidden_files_and_links() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.rs", "a/z.rs", "a/b/c.md", ".hidden", ".git/config"] {
            write(root.path(), name, "text");
        }
        std::os::unix::fs::symlink("b.rs", root.path().join("link.rs")).unwrap();
        let corpus = Corpus::open(Some(root.path())).unwrap();
        assert_eq!(names(&corpus.files), ["a/b/c.md", "a/z.rs", "b.rs"]);
        assert_eq!(corpus.bytes(), 12);
    }

    #[test]
    fn corpus_limit_takes_whole_files_from_the_front_and_at_least_one() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            write(root.path(), name, "0123456789");
        }
        let corpus = Corpus::open(Some(root.path())).unwrap();
        assert_eq!(names(corpus.within(None)), ["a", "b", "c"]);
        assert_eq!(names(corpus.within(Some(29))), ["a", "b"]);
        assert_eq!(names(corpus.within(Some(3))), ["a"]);
    }

    #[test]
    fn corpus_hash_follows_names_and_content() {
        let hash_of = |files: &[(&str, &str)]| {
            let root = tempfile::tempdir().unwrap();
            for (name, text) in files {
                write(root.path(), name, text);
            }
            Corpus::open(Some(root.path())).unwrap().hash()
        };
        let hash = hash_of(&[("a", "1"), ("b", "2")]);
        assert_eq!(hash, hash_of(&[("b", "2"), ("a", "1")]));
        assert_ne!(hash, hash_of(&[("a", "1"), ("b", "3")]));
        assert_ne!(hash, hash_of(&[("a", "1"), ("c", "2")]));
    }

    #[test]
    fn corpus_of_packages_counts_those_that_are_absent() {
        let lock = r#"
            version = 3
            [[package]]
            name = "here"
            version = "1.0.0"
            source = "registry+https://example.org/index"
            [[package]]
            name = "elsewhere"
            version = "2.0.0"
            source = "registry+https://example.org/index"
            [[package]]
            name = "own"
            version = "0.1.0"
        "#;
        let registry = tempfile::tempdir().unwrap();
        write(registry.path(), "here-1.0.0/src/lib.rs", "pub fn f() {}");
        let corpus = Corpus::of_packages(lock, &[registry.path().to_path_buf()]).unwrap();
        assert_eq!((corpus.packages, corpus.absent_packages), (1, 1));
        assert_eq!(names(&corpus.files), ["here-1.0.0/src/lib.rs"]);
    }

    #[test]
    fn corpus_knows_the_lock_file_of_this_workspace() {
        assert!(packages_of(LOCK_FILE).unwrap().iter().any(|package| package.starts_with("syn-")));
    }
}

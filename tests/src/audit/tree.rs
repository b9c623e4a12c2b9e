//! Which files the repository has, without asking git: an audit must also see what is not committed yet.

use std::path::{Path, PathBuf};

/// One text file of the repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the top of the repository, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// The text files of the repository that audits read: Rust, Markdown, TOML.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    files: Vec<File>,
}

/// The repository could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A file or folder could not be read; the operating system says why.
    #[error("{path} could not be read: {source}")]
    Unreadable {
        /// What was being read.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// What is built or belongs to the version control is no source: `target` also below a fuzz folder.
const SKIPPED_FOLDERS: &[&str] = &["target", ".git", "artifacts", "coverage", "corpus"];
const EXTENSIONS: &[&str] = &["rs", "md", "toml"];

impl Tree {
    /// Reads this repository: the folder above the one that holds this package.
    ///
    /// # Errors
    /// [`TreeError::Unreadable`] names the first file or folder that could not be read.
    pub fn of_this_repository() -> Result<Self, TreeError> {
        // The runner's word counts before the compiler's: two clones may share a folder of built programs.
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Self::read(&Path::new(&package).join(".."))
    }

    /// Reads the repository at `root`.
    ///
    /// # Errors
    /// [`TreeError::Unreadable`] names the first file or folder that could not be read.
    pub fn read(root: &Path) -> Result<Self, TreeError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| TreeError::Unreadable { path, source }
        };
        let root = root.canonicalize().map_err(unreadable(root))?;
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(unreadable(&folder))? {
                let entry = entry.map_err(unreadable(&folder))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(unreadable(&path))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if kind.is_dir() {
                    if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                        folders.push(path);
                    }
                } else if kind.is_file()
                    && EXTENSIONS.iter().any(|wanted| path.extension().is_some_and(|is| is == *wanted))
                {
                    let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
                    files.push(File { path: relative(&root, &path), text });
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root, files })
    }

    /// The top of the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every Rust file.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.with_extension(".rs")
    }

    /// Every Markdown file.
    pub fn markdown(&self) -> impl Iterator<Item = &File> {
        self.with_extension(".md")
    }

    /// The file at `path`, if the repository has it.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    fn with_extension(&self, extension: &'static str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.path.ends_with(extension))
    }
}

impl File {
    /// Whether the whole file serves tests, benches or fuzzing only.
    pub fn serves_tests(&self) -> bool {
        const FOLDERS: &[&str] = &["tests", "benches", "fuzz", "examples", "testing"];
        const NAMES: &[&str] = &["tests.rs", "testing.rs"];
        let mut parts = self.path.split('/').rev();
        let name = parts.next().unwrap_or_default();
        NAMES.contains(&name) || parts.any(|folder| FOLDERS.contains(&folder))
    }
}

fn relative(root: &Path, path: &Path) -> String {
    let parts: Vec<_> = path
        .strip_prefix(root)
        .unwrap_or(path)
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_nested_sources_and_skips_what_is_built() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in
            [("a/src/lib.rs", "x"), ("README.md", "y"), ("target/debug/z.rs", "z"), ("a/b.bin", "w")]
        {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(
                &mut std::fs::OpenOptions::new().create_new(true).write(true).open(path).unwrap(),
                text.as_bytes(),
            )
            .unwrap();
        }
        let tree = Tree::read(folder.path()).unwrap();
        assert_eq!(tree.rust().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a/src/lib.rs"]);
        assert_eq!(tree.markdown().count(), 1);
        assert!(tree.file("a/b.bin").is_none());
    }

    #[test]
    fn a_missing_root_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Tree::read(&folder.path().join("nowhere")), Err(TreeError::Unreadable { .. })));
    }

    #[test]
    fn test_files_are_told_from_the_path() {
        let file = |path: &str| File { path: path.to_owned(), text: String::new() };
        assert!(file("tests/src/audit/mod.rs").serves_tests());
        assert!(file("client/vault/tests/crash.rs").serves_tests());
        assert!(file("protocol/src/session/tests.rs").serves_tests());
        assert!(!file("protocol/src/session/guard.rs").serves_tests());
    }
}

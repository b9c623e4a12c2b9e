//! The examiner as a command: what somebody finds in a container who has every version of every block of it.
//!
//! How to use it, and what its report means: docs/examiner.md.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use lapwing_tests::{
    CHEAP,
    examiner::{
        Blocks, Canary, Report, examine, record, snapshots,
        story::{self, Story},
        timing,
    },
    trace::{self, End, Plan},
};
use lapwing_vault::Cost;

/// Most bytes of one file that is searched: an image of the largest container fits.
const LARGEST: u64 = 17 << 30;

#[derive(Parser)]
#[command(
    name = "lapwing-examiner",
    about = "Looks for planted words in a container, with every version of every block"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Examine images and logs of writes
    Examine(ExamineArgs),
    /// Tell which parts changed between several images: what nobody needs a passphrase for
    Compare(CompareArgs),
    /// Run a program and log every byte that it writes to a container
    Record(RecordArgs),
    /// Play a whole story on real processes, with a relay, and examine what is left of it
    Story(StoryArgs),
    /// Measure how long unlocks of each kind take, and whether they can be told apart by that
    Timing(TimingArgs),
}

#[derive(Args)]
struct ExamineArgs {
    /// An image of the container, or a folder of images in the order of their names; oldest first
    #[arg(long = "image", value_name = "PATH", required = true)]
    images: Vec<PathBuf>,
    /// A log of writes, made by `record`; taken in after the first image
    #[arg(long = "writes", value_name = "PATH")]
    writes: Vec<PathBuf>,
    /// Read passphrases from this descriptor, one a line
    #[arg(long, value_name = "N")]
    passphrase_fd: Option<u32>,
    /// A file with planted words, one a line, of five bytes or more
    #[arg(long, value_name = "PATH")]
    canaries: PathBuf,
    /// Anything else to be searched: a home folder, a terminal's log, a core file, an image of memory
    #[arg(long = "search", value_name = "PATH")]
    search: Vec<PathBuf>,
    /// The container was made by this repository's tests, with a key derivation that costs nothing
    #[arg(long)]
    cheap: bool,
    /// Write the report as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CompareArgs {
    /// An image of the container, or a folder of images in the order of their names; oldest first
    #[arg(long = "image", value_name = "PATH", required = true)]
    images: Vec<PathBuf>,
    /// Write lines of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RecordArgs {
    /// The container
    #[arg(long, value_name = "PATH")]
    file: PathBuf,
    /// The log; what is there already is kept
    #[arg(long, value_name = "PATH")]
    log: PathBuf,
    /// The program and its arguments; its standard input is passed on
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct StoryArgs {
    /// Which SOS passphrase is typed at the end
    #[arg(value_enum, default_value = "destroy")]
    ends: Ending,
    /// Write the reports as lines of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TimingArgs {
    /// Unlocks of each kind
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    rounds: u32,
    /// Write lines of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Ending {
    Hide,
    Destroy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Examine(args) => examine_images(&args),
        Command::Compare(args) => compare_images(&args),
        Command::Record(args) => record_writes(&args),
        Command::Story(args) => tell(&args),
        Command::Timing(args) => measure(&args),
    };
    done.unwrap_or_else(|error| {
        // A closed pipe is no failure.
        let _ = writeln!(io::stderr(), "error: {error}");
        ExitCode::from(2)
    })
}

fn problem(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

/// The system's error with the path that it is about.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| problem(format!("{}: {error}", path.display()))
}

/// Exit code 0: nothing was found; 1: something was.
fn examine_images(args: &ExamineArgs) -> io::Result<ExitCode> {
    let mut images = Vec::new();
    for path in &args.images {
        images.extend(files(path).map_err(at(path))?);
    }
    let mut images = images.into_iter();
    let first = images.next().ok_or_else(|| problem("there is no image in that folder"))?;
    let size = "no container has this size; the smallest has 8 MiB, and each has a multiple of 4,096 bytes";
    let mut blocks = Blocks::of_image(&whole(&first)?).ok_or_else(|| at(&first)(problem(size)))?;
    for path in &args.writes {
        let mut log = BufReader::new(File::open(path).map_err(at(path))?);
        record::read(&mut log, path).map_err(at(path))?.iter().for_each(|write| blocks.add_write(write));
    }
    for path in images {
        if !blocks.add_image(&whole(&path)?) {
            return Err(at(&path)(problem(
                "this image has another size than the first: it is of another container",
            )));
        }
    }
    let canaries = words(&args.canaries)?;
    let passphrases = passphrases(args.passphrase_fd)?;
    let mut more = Vec::new();
    for path in &args.search {
        for file in files(path).map_err(at(path))? {
            more.push((file.display().to_string(), whole(&file)?));
        }
    }
    let cost = if args.cheap { CHEAP } else { Cost::FORMAT_1 };
    let (report, _) = examine(&blocks, &passphrases, cost, &canaries, &more);
    show(&report, args.json)?;
    Ok(ExitCode::from(u8::from(!report.found.is_empty())))
}

/// Which parts of the container changed from image to image.
fn compare_images(args: &CompareArgs) -> io::Result<ExitCode> {
    let mut images = Vec::new();
    for path in &args.images {
        for file in files(path).map_err(at(path))? {
            images.push(whole(&file)?);
        }
    }
    let changes = snapshots::compare(&images)
        .filter(|changes| !changes.is_empty())
        .ok_or_else(|| problem("two images at least are needed, of one container and thus of one size"))?;
    let mut out = io::stdout().lock();
    for (number, change) in changes.iter().enumerate() {
        if args.json {
            writeln!(out, "{}", serde_json::to_string(change)?)?;
        } else {
            writeln!(out, "image {} to {}: {change}", number + 1, number + 2)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json { writeln!(out, "{}", serde_json::to_string(report)?) } else { writeln!(out, "{report}") }
}

/// A file itself, or all files below a folder in the order of their names. Links are left alone.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let kind = fs::symlink_metadata(path)?;
    if kind.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !kind.is_dir() {
        return Ok(Vec::new());
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        found.extend(files(&entry)?);
    }
    Ok(found)
}

fn whole(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path).map_err(at(path))?;
    if file.metadata()?.len() > LARGEST {
        return Err(at(path)(problem("this file is larger than any container")));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(at(path))?;
    Ok(bytes)
}

fn words(path: &Path) -> io::Result<Vec<Canary>> {
    let text =
        String::from_utf8(whole(path)?).map_err(|_| at(path)(problem("the words are not text in UTF-8")))?;
    let words: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match words.iter().find(|word| word.len() < 5) {
        Some(word) => {
            Err(at(path)(problem(format!("{word:?} is too short: it is found anywhere by chance"))))
        }
        None if words.is_empty() => Err(at(path)(problem("there is no word in it to look for"))),
        None => Ok(words.into_iter().map(|word| Canary::Text(word.to_owned())).collect()),
    }
}

/// Without a descriptor there is none: what is found then is found without any.
fn passphrases(descriptor: Option<u32>) -> io::Result<Vec<Vec<u8>>> {
    let Some(number) = descriptor else { return Ok(Vec::new()) };
    let path = PathBuf::from(format!("/dev/fd/{number}"));
    let mut text = String::new();
    File::open(&path).and_then(|file| file.take(1 << 20).read_to_string(&mut text)).map_err(at(&path))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(|line| line.as_bytes().to_vec()).collect())
}

/// The exit code is the program's own.
fn record_writes(args: &RecordArgs) -> io::Result<ExitCode> {
    let (program, arguments) =
        args.command.split_first().ok_or_else(|| problem("there is no program to run"))?;
    let mut input = Vec::new();
    if !io::IsTerminal::is_terminal(&io::stdin()) {
        io::stdin().lock().take(1 << 20).read_to_end(&mut input)?;
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let plan = Plan::new(PathBuf::from(program), &arguments, &input).watching(args.file.clone());
    let seen = trace::run(&plan).map_err(|error| problem(error.to_string()))?;
    let begins = !args.log.try_exists()?;
    let mut log = OpenOptions::new().create(true).append(true).open(&args.log).map_err(at(&args.log))?;
    record::append(&mut log, begins, &seen.writes).map_err(at(&args.log))?;
    io::stdout().lock().write_all(&seen.stdout)?;
    io::stderr().lock().write_all(&seen.stderr)?;
    Ok(match seen.end {
        End::Exited(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        End::Signaled(_) => ExitCode::FAILURE,
    })
}

/// The story, and five examinations of what is left.
fn tell(args: &StoryArgs) -> io::Result<ExitCode> {
    let program = beside("lapwing-cheap")?;
    let forced = match args.ends {
        Ending::Hide => story::HIDE,
        Ending::Destroy => story::DESTROY,
    };
    let story = story::tell(&program, forced);
    let more = story.found_with_bo(forced);
    let look = |blocks: &Blocks, passphrase: &str, words: &[&str], more: &[(String, Vec<u8>)]| {
        examine(blocks, &[passphrase.as_bytes().to_vec()], CHEAP, &story::canaries(words), more).0
    };
    let image = |bytes: &[u8]| Blocks::of_image(bytes).ok_or_else(|| problem("the story left no container"));
    let typed = [story::REAL, story::HIDE, story::DESTROY, story::REMOVED];
    let unseen = [&story::PRIVATE[..], &story::ERASED, &typed].concat();
    let erased = [&story::ERASED[..], &story::SHOWN_ERASED].concat();
    let everything = [&story::PRIVATE[..], &erased].concat();
    // Title, report, and whether all words must be found (or none).
    let parts = [
        (
            "WHO HAS THE SOS PASSPHRASE, LOOKING FOR WHAT THE COVER DOES NOT SHOW, AND FOR PASSPHRASES",
            look(&story.blocks, forced, &unseen, &more),
            None,
        ),
        (
            "THE SAME, LOOKING FOR WHAT THE COVER SHOWS",
            look(&story.blocks, forced, &story::SHOWN, &more),
            Some(story::SHOWN.len()),
        ),
        (
            "WHO HAS THE REAL PASSPHRASE AND ALL OLD BLOCKS",
            look(&story.blocks, story::REAL, &everything, &[]),
            Some(everything.len()),
        ),
        (
            "WHO HAS THE REAL PASSPHRASE AND THE FILE AS IT WAS BEFORE THE FORCED UNLOCK, LOOKING FOR WHAT HAD BEEN ERASED",
            look(&image(&story.before)?, story::REAL, &erased, &[]),
            None,
        ),
        (
            "WHO HAS THE SOS PASSPHRASE AND THE FILE AS IT IS AT THE END, LOOKING FOR WHAT HAD BEEN ERASED IN THE COVER",
            look(&image(&story.after)?, forced, &story::SHOWN_ERASED, &[]),
            None,
        ),
    ];
    let mut as_promised = story.strays.is_empty() && story.core.is_empty();
    for (number, (title, report, wanted)) in parts.iter().enumerate() {
        let found = report.names().len();
        as_promised &= found == wanted.unwrap_or_default();
        if args.json {
            show(report, true)?;
            continue;
        }
        let must =
            if wanted.is_some() { "all must be found: the search works" } else { "nothing must be found" };
        writeln!(io::stdout(), "{}. {title}\n({must})\n", number + 1)?;
        show(report, false)?;
    }
    as_promised &= story.controls().iter().all(|control| control.found != Some(false));
    if !args.json {
        tell_controls(&story, as_promised)?;
    }
    Ok(ExitCode::from(u8::from(!as_promised)))
}

/// That the eyes see in every place, and what else was looked at.
fn tell_controls(story: &Story, as_promised: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "6. ONE WORD IN EVERY OTHER PLACE THAT WAS SEARCHED\n(each must be found: the search works there)\n"
    )?;
    for control in story.controls() {
        let found = match control.found {
            Some(true) => "found",
            Some(false) => "NOT FOUND",
            None => "not looked at: this computer leaves no such file",
        };
        writeln!(out, "  {}: {:?} {found}", control.place, control.word)?;
    }
    let none_or = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let cores: Vec<String> = story.core.iter().map(|(name, _)| name.clone()).collect();
    writeln!(out, "\n  Core files after a crash of lapwing, where they were allowed: {}.", none_or(&cores))?;
    writeln!(out, "  Files in the home folder that nobody expects there: {}.", none_or(&story.strays))?;
    let verdict = if as_promised { "Everything is as it was promised." } else { "NOT AS PROMISED." };
    writeln!(out, "\n{verdict}")
}

/// Nothing is judged: a computer that does other things differs from itself.
fn measure(args: &TimingArgs) -> io::Result<ExitCode> {
    let rounds =
        usize::try_from(args.rounds).map_err(|_| problem("that many rounds cannot be counted here"))?;
    let timed = timing::unlocks(rounds).ok_or_else(|| problem("no container could be made"))?;
    let mut out = io::stdout().lock();
    for one in &timed {
        if args.json {
            writeln!(out, "{}", serde_json::to_string(one)?)?;
        } else {
            writeln!(
                out,
                "{:14} median {:8.1} us, {:5.2} standard errors from real",
                one.kind, one.median_us, one.distance
            )?;
        }
    }
    if !args.json {
        writeln!(
            out,
            "From {} on two kinds are told apart; \"real again\" is the computer's own unrest.",
            timing::FAR
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A program that was built together with this one.
fn beside(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(problem(format!("{} is missing; build it with: cargo build -p lapwing-tests --bins", path.display())))
}

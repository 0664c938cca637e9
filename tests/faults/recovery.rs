//! One table: what goes wrong, when; what a client then sees, and by which rung.

use crate::support::{Agent, Width, World};

#[tokio::test]
async fn smoke() {
    for width in [Width::Lanes, Width::Single] {
        for stream in [false, true] {
            let world = World::start(width, |_| {}).await;
            let mut agent = Agent::new("k", stream);
            for wish in ["text=30", "calls=1", "text=10"] {
                println!("{}", agent.turn(&world, wish, "smoke").await);
            }
            world.assert_lawful();
        }
    }
}
